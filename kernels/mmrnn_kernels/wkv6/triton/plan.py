"""What the host chooses before a kernel runs: precision, warps, and how sequences are cut where heads are few."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

CHUNK = 16
"""Positions of a tile: each doubling is one more level for every position, and more registers than there are."""

KEPT = 4
"""Positions whose states wait in registers for their gradients, in the form by positions."""

FEW = 2
"""Warps in the form by positions, where every warp repeats what belongs to a position."""

SHORT = 16
"""Up to this length the recurrence is the faster one."""

LONG = 32 * CHUNK
"""Positions of a piece, at least: the states that pieces start from cost a pass of their own."""


@dataclass(frozen=True)
class Mode:
    """What the factors of products are rounded to, and whose instructions are used."""

    precision: str
    target: str

    @property
    def states(self) -> torch.dtype:
        """Of the states that the backward pass keeps for itself: they enter products as they are."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


def mode(*inputs: Tensor) -> Mode:
    """bf16 is multiplied as bf16, fp16 as TF32 (which has the range that states need), fp32 as it is."""
    dtypes = {x.dtype for x in inputs}
    if inputs[0].device.type != "cuda":
        return Mode("bf16 emulated" if dtypes == {torch.bfloat16} else "ieee", "interpreter")
    return compiled(dtypes, "hip" if torch.version.hip else "cuda")


def compiled(dtypes: set[torch.dtype], target: str) -> Mode:
    """The mode on a GPU."""
    if dtypes == {torch.bfloat16}:
        return Mode("bf16", target)
    return Mode("ieee" if torch.float32 in dtypes or target == "hip" else "tf32", target)


def streams(size: int, mode: Mode) -> bool:
    """Whether sequences are computed position by position: NVIDIA's matrix units round fp32, and in chunks with TF32
    factors only heads of 64 fit the registers."""
    return mode.target == "cuda" and (mode.precision == "ieee" or (mode.precision == "tf32" and size != 64))


def warps(size: int, mode: Mode, backward: bool = False) -> int:
    """Of a program, so that its tiles fit the registers, of which AMD has twice as many a thread. `size` is K = V."""
    half = mode.precision == "bf16" and not backward
    return 4 if mode.target == "hip" or size < 64 or (size == 64 and half) else 8


def tile(size: int, mode: Mode) -> int:
    """Columns of the state for one program, so that tiles fit registers and 48 KB of shared memory."""
    return min(size, (2**13 if mode.precision == "bf16" else 2**12) // size)


def keys(size: int, mode: Mode) -> int:
    """Rows of the state for one program of the backward pass by chunks, ..."""
    return min(size, 2**12 // size) if mode.precision == "bf16" else min(size // 2, 2**11 // size)


def rows(size: int) -> int:
    """... and of that by positions, which keeps a chunk of states."""
    return 2**10 // size


@cache
def processors(device: torch.device) -> int:
    """How many programs run side by side at the least; the interpreter runs one."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def columns(tile: int, programs: int, processors: int) -> int:
    """Half a tile, where heads cannot fill the processors."""
    return tile if programs >= processors else tile // 2


def span(longest: int, programs: int, processors: int) -> tuple[int, int]:
    """Positions of a piece and pieces of the longest sequence, so that there are programs enough."""
    wanted = math.ceil(2 * processors / programs) if programs < processors else 1
    pieces = max(1, min(wanted, longest // LONG))
    span = math.ceil(longest / pieces / CHUNK) * CHUNK
    return span, math.ceil(longest / span)
