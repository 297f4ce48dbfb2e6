"""One token through all layers of an RWKV-5 or RWKV-6 in one native call."""

from .cpu import DTYPES, MULTIPLE, few_rows_linear, unavailable_reason
from .step import BLOCK_PARAMETERS, FIRST_BLOCK_PARAMETERS, LOW_RANK_PARAMETERS, MATRICES, STATE_NAMES, DecodeStep

__all__ = [
    "BLOCK_PARAMETERS",
    "DTYPES",
    "FIRST_BLOCK_PARAMETERS",
    "LOW_RANK_PARAMETERS",
    "MATRICES",
    "MULTIPLE",
    "STATE_NAMES",
    "DecodeStep",
    "few_rows_linear",
    "unavailable_reason",
]
