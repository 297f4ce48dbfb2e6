"""What the host chooses before a kernel runs: how much a program reads. From sizes and types alone, so that sums over
positions are the same on every GPU.
"""

import torch
import triton

WARPS = 4

FLAT = 1024
"""Numbers of a program where each stands for itself."""

POSITIONS = 32
"""Of a program, at most. Each reads one position more than its own, and writes a share of the gradients of parameters
in fp32, which is read again."""


def positions(length: int) -> int:
    """Of a program, where there are `length` of them."""
    return min(POSITIONS, triton.next_power_of_2(length))


def channels(width: int, *types: torch.dtype) -> int:
    """Of a program: 16 bytes a thread and input."""
    return min(triton.next_power_of_2(width), WARPS * 32 * 16 // max(dtype.itemsize for dtype in types))


def heads(count: int, size: int) -> tuple[int, int]:
    """Heads of a program, and room for the numbers of one."""
    room = triton.next_power_of_2(size)
    return max(1, min(triton.next_power_of_2(count), WARPS * 128 // room)), room
