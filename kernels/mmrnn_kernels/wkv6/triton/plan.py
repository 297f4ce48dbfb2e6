"""What the host chooses before a kernel runs: precision, warps, and how sequences are cut where heads are few."""

from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor

CHUNK = 16
"""Positions of a tile: each doubling is one more level for every position, and more registers than there are."""

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
    """bf16 is multiplied as bf16, fp16 as TF32 (which has the range that states need), fp32 as three TF32 products."""
    dtypes = {x.dtype for x in inputs}
    if inputs[0].device.type != "cuda":
        return Mode("bf16 emulated" if dtypes == {torch.bfloat16} else "ieee", "interpreter")
    return compiled(dtypes, "hip" if torch.version.hip else "cuda")


def compiled(dtypes: set[torch.dtype], target: str) -> Mode:
    """The mode on a GPU."""
    if dtypes == {torch.bfloat16}:
        return Mode("bf16", target)
    if target == "hip":  # which multiplies fp32 as it is
        return Mode("ieee", target)
    return Mode("tf32x3" if torch.float32 in dtypes else "tf32", target)


def warps(size: int) -> int:
    """Of a program, so that nothing is spilled. `size` is K = V."""
    return 8 if size > 64 else 4


def tile(size: int, mode: Mode, backward: bool = False) -> int:
    """Columns of the state for one program, so that its share of shared memory stays below 48 KB."""
    most = 64 * 64 if mode.precision == "bf16" or not backward else 64 * 32
    return min(size, most // size)


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
    wanted = triton.cdiv(2 * processors, programs) if programs < processors else 1
    pieces = max(1, min(wanted, longest // LONG))
    span = triton.cdiv(triton.cdiv(longest, pieces), CHUNK) * CHUNK
    return span, triton.cdiv(longest, span)
