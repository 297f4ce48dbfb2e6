"""Weights that others have published, into our parts."""

from mmrnn.weights.format import Format
from mmrnn.weights.load import Report, WeightsError, convert, load

__all__ = ["Format", "Report", "WeightsError", "convert", "load"]
