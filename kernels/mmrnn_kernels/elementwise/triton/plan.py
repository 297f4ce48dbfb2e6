"""Sizes of a program, chosen from sizes and types alone, so that sums over positions are the same on every GPU."""

import torch
import triton

WARPS = 4
"""Of every program."""

POINTWISE_BLOCK = 1024
"""Elements of a program of the pointwise kernels."""

MAX_POSITIONS = 32
"""Positions of a program. `lerp` reads one more than these; every program writes partial sums of the gradients of
parameters in fp32, which are read again."""


def positions(length: int) -> int:
    """Return the positions of a program for `length` of them."""
    return min(MAX_POSITIONS, triton.next_power_of_2(length))


def channels(width: int, *types: torch.dtype) -> int:
    """Return the channels of a program: 16 bytes a thread and input."""
    return min(triton.next_power_of_2(width), WARPS * 32 * 16 // max(dtype.itemsize for dtype in types))


def heads(count: int, size: int) -> tuple[int, int]:
    """Return the heads of a program, and the values of one rounded up to a power of two."""
    padded_size = triton.next_power_of_2(size)
    return max(1, min(triton.next_power_of_2(count), WARPS * 128 // padded_size)), padded_size
