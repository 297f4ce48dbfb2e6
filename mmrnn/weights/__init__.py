"""Published weights: from their formats into parts of mmrnn, and back."""

from mmrnn.weights.convert import Report, WeightsError, convert
from mmrnn.weights.format import Format
from mmrnn.weights.load import load

__all__ = [
    "Format",
    "Report",
    "WeightsError",
    "convert",
    "load",
]
