"""What the host chooses before a kernel runs: precision, warps, and how sequences are cut where heads are few."""

import math
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

CHUNK = 16
"""Positions of a tile: each doubling is one more level for every position, and more registers than there are."""

KEPT = 4
"""Positions whose states wait in registers for their gradients, in the form by positions."""

SHORT = 16
"""Up to this length the recurrence is the faster one."""

LONG = 32 * CHUNK
"""Positions of a piece, at least: the states that pieces start from cost a pass of their own."""


@dataclass(frozen=True)
class Mode:
    """What the factors of products are rounded to, and for what it is compiled (`hopper`: sm_90)."""

    precision: str
    target: str
    hopper: bool = field(default=False, kw_only=True)

    @property
    def states(self) -> torch.dtype:
        """Of the states that the backward pass keeps for itself: they enter products as they are."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def options(self) -> dict[str, int]:
        """Of a launch by positions: few warps, as each repeats what belongs to a position, and all registers there are,
        as NVIDIA's assembler would rather spill some bytes than use them.
        """
        return {"num_warps": 2} | ({"maxnreg": 255} if self.target == "cuda" else {})


def mode(*inputs: Tensor) -> Mode:
    """bf16 is multiplied as bf16, fp16 as TF32 (which has the range that states need), fp32 as it is."""
    dtypes = {x.dtype for x in inputs}
    if inputs[0].device.type != "cuda":
        return Mode("bf16 emulated" if dtypes == {torch.bfloat16} else "ieee", "interpreter")
    if torch.version.hip:
        return compiled(dtypes, "hip")
    return compiled(dtypes, "cuda", hopper=torch.cuda.get_device_capability(inputs[0].device)[0] == 9)


def compiled(dtypes: set[torch.dtype], target: str, hopper: bool = False) -> Mode:
    """The mode on a GPU."""
    exact = "ieee" if torch.float32 in dtypes or target == "hip" else "tf32"
    return Mode("bf16" if dtypes == {torch.bfloat16} else exact, target, hopper=hopper)


def streams(size: int, mode: Mode) -> bool:
    """Whether sequences are computed position by position: NVIDIA's matrix units round fp32, and in chunks with TF32
    factors only heads of 64 fit the registers.
    """
    return mode.target == "cuda" and (mode.precision == "ieee" or (mode.precision == "tf32" and size != 64))


def warps(size: int, mode: Mode, backward: bool = False, constant: bool = False) -> int:
    """Of a program, so that its tiles fit the registers, of which AMD has twice as many a thread. `size` is K = V."""
    if mode.target == "hip" or size < 64:
        return 4
    bf16 = mode.precision == "bf16"
    if not backward:
        few = size == 64 and bf16
    elif mode.hopper:
        few = size == 64 and not (constant and bf16)
    else:
        few = keys(size, mode) < size
    return 4 if few else 8


def tile(size: int, mode: Mode) -> int:
    """Columns of the state for one program, so that tiles fit registers and 48 KB of shared memory."""
    return min(size, (2**13 if mode.precision == "bf16" else 2**12) // size)


def keys(size: int, mode: Mode) -> int:
    """Rows of the state for one program of the backward pass by chunks, ..."""
    wide = min(size, 2**12 // size) if mode.precision == "bf16" else min(size // 2, 2**11 // size)
    return 16 if wide < size and mode.target == "cuda" and not mode.hopper else wide


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
