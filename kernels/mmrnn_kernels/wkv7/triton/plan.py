"""What the host chooses before a kernel runs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...wkv6.triton import plan

CHUNK, KEPT, SHORT = plan.CHUNK, plan.KEPT, plan.SHORT
rows = plan.rows


@dataclass(frozen=True)
class Mode(plan.Mode):
    """And what the factors are rounded to that have to be more exact: sums of logarithms, the inverse."""

    full: str


def mode(*inputs: Tensor) -> Mode:
    dtypes = {x.dtype for x in inputs}
    if inputs[0].device.type != "cuda":
        return Mode("bf16 emulated" if dtypes == {torch.bfloat16} else "ieee", "interpreter", "ieee")
    return compiled(dtypes, "hip" if torch.version.hip else "cuda")


def compiled(dtypes: set[torch.dtype], target: str) -> Mode:
    """On a GPU. Beside inputs in bf16 TF32 is exact enough: x 2^-11 off in the exponent, a decay exp(-x) is off by less
    than 2^-12.
    """
    return Mode(plan.compiled(dtypes, target).precision, target, "ieee" if target == "hip" else "tf32")


def streams(size: int, mode: Mode) -> bool:
    """Whether sequences are computed position by position: chunks fit the registers with factors in bf16 and heads of
    64, and of smaller heads they take more instructions.
    """
    return size != 64 or mode.precision != "bf16"


def warps(mode: Mode, backward: bool = False) -> int:
    """Of a program. AMD has twice as many registers a thread."""
    return 4 if backward or mode.target == "hip" else 8


def columns(size: int) -> int:
    """Of the state for one program: they know nothing of each other, and half of them stay in registers."""
    return size // 2


def keys(size: int) -> int:
    """Rows of the state for one program of the backward pass by chunks."""
    return size // 2
