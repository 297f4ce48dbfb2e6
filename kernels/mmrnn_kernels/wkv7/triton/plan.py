"""Host-side choices of WKV-7."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.triton import plan


@dataclass(frozen=True)
class CompileMode(plan.CompileMode):
    """Adds the type of factors that must be more exact: sums of logarithms, and the inverse."""

    exact_type: str


def compile_mode(*inputs: Tensor) -> CompileMode:
    """Choose the mode for inputs of these types and their device."""
    dtypes = {x.dtype for x in inputs}
    if inputs[0].device.type != "cuda":
        return CompileMode("bf16 emulated" if dtypes == {torch.bfloat16} else "ieee", "interpreter", "ieee")
    return gpu_mode(dtypes, "hip" if torch.version.hip else "cuda")


def gpu_mode(dtypes: set[torch.dtype], target: str) -> CompileMode:
    """Choose the mode on a GPU.

    With bf16 inputs TF32 is exact enough for exponents: x 2^-11 off in the exponent, a decay exp(-x) is off by less
    than 2^-12.
    """
    return CompileMode(plan.gpu_mode(dtypes, target).dot_type, target, "ieee" if target == "hip" else "tf32")


def is_recurrent(size: int, mode: CompileMode) -> bool:
    """Return whether long sequences are computed position by position.

    Chunks fit the registers with bf16 factors and heads of 64; for smaller heads they take more instructions.
    """
    return size != 64 or mode.dot_type != "bf16"


def warps(mode: CompileMode, backward: bool = False) -> int:
    """Return the warps of a program. AMD has twice as many registers a thread."""
    return 4 if backward or mode.target == "hip" else 8


def columns(size: int) -> int:
    """Return the columns of the state for one forward program: they are independent, and half of them fit registers."""
    return size // 2


def backward_keys(size: int) -> int:
    """Return the rows of the state for one program of the backward kernel by chunks."""
    return size // 2
