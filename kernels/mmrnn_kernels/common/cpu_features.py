"""Features of this processor that decide which data type is fast."""

from functools import cache

import torch


@cache
def multiplies_bf16() -> bool:
    """Return whether this processor has instructions for bf16 products; elsewhere they are slower than fp32."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def has_avx512() -> bool:
    """Return whether torch computes with AVX-512 on this processor: twice the registers of AVX2, twice as wide."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
