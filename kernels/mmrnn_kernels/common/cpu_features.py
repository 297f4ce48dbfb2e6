"""Features of this processor that decide which data type is fast."""

from functools import cache

import torch


@cache
def multiplies_bf16() -> bool:
    """Return whether this processor has instructions for bf16 products; elsewhere they are slower than fp32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
