"""Weights that others have published, into our parts."""

from mmrnn.weights.format import Format
from mmrnn.weights.load import load
from mmrnn.weights.match import Report, WeightsError, convert

__all__ = ["Format", "Report", "WeightsError", "convert", "load"]
