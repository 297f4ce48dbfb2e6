"""Host-side choices of WKV-6: the form, warps, tile sizes, and pieces of sequences where heads are few."""

import math
from functools import cache

import torch

from ...common.triton.plan import CHUNK, CompileMode

MIN_PIECE = 32 * CHUNK
"""Positions of the shortest piece: the states that pieces start from cost a pass of their own."""


def is_recurrent(size: int, mode: CompileMode) -> bool:
    """Return whether long sequences are computed position by position.

    NVIDIA's matrix units round fp32, and in chunks with TF32 factors only heads of 64 fit the registers.
    """
    return mode.target == "cuda" and (mode.dot_type == "ieee" or (mode.dot_type == "tf32" and size != 64))


def warps(size: int, mode: CompileMode, backward: bool = False, constant: bool = False) -> int:
    """Return the warps of a program whose tiles fit the registers, of which AMD has twice as many a thread.

    `size` is K = V, `constant` one decay for all positions.
    """
    if mode.target == "hip" or size < 64:
        return 4
    is_bf16 = mode.dot_type == "bf16"
    if not backward:
        few = size == 64 and is_bf16
    elif mode.is_hopper:
        few = size == 64 and not (constant and is_bf16)
    else:
        few = backward_keys(size, mode) < size
    return 4 if few else 8


def max_columns(size: int, mode: CompileMode) -> int:
    """Return the most columns of the state whose tiles fit the registers and 48 KB of shared memory."""
    return min(size, (2**13 if mode.dot_type == "bf16" else 2**12) // size)


def columns(size: int, mode: CompileMode, programs: int, processors: int) -> int:
    """Return the columns of the state for one program: half of the most where heads cannot fill the processors."""
    most = max_columns(size, mode)
    return most if programs >= processors else most // 2


def backward_keys(size: int, mode: CompileMode) -> int:
    """Return the rows of the state for one program of the backward kernel by chunks."""
    keys = min(size, 2**12 // size) if mode.dot_type == "bf16" else min(size // 2, 2**11 // size)
    return 16 if keys < size and mode.target == "cuda" and not mode.is_hopper else keys


@cache
def processors(device: torch.device) -> int:
    """Return how many programs run side by side at least; in the interpreter one."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def pieces(longest: int, programs: int, processors: int) -> tuple[int, int]:
    """Return the positions of a piece and the pieces of the longest sequence, so that there are enough programs."""
    wanted = math.ceil(2 * processors / programs) if programs < processors else 1
    count = max(1, min(wanted, longest // MIN_PIECE))
    span = math.ceil(longest / count / CHUNK) * CHUNK
    return span, math.ceil(longest / span)
