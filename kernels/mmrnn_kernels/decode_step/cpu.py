"""Calls of the native code (decode_step.cpp), and its product of a few rows with a matrix."""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float, Real
from torch import Tensor

from ..common.native import build

SOURCE = Path(__file__).parent / "native" / "decode_step.cpp"

MULTIPLE = 16
"""Widths, head sizes and all other summed axes must be multiples of this."""

DTYPES = (torch.float32, torch.bfloat16)
"""Types of weights and inputs; all weights have one."""


class Linear(ctypes.Structure):
    """Arguments of `mmrnn_few_rows_linear`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "scales", "x", "y")),
        *((name, ctypes.c_int64) for name in ("out", "in", "batch")),
    )


def unavailable_reason() -> str | None:
    """Return why the native code cannot run here, or None. The first call builds."""
    return build.unavailable_reason(SOURCE)


def call(name: str, arguments: ctypes.Structure, dtype: torch.dtype) -> None:
    """Call a native function on weights of this type.

    Raises:
        MemoryError: there is no memory for the activations.
    """
    function = build.native_function(SOURCE, name, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    if function(ctypes.addressof(arguments), dtype == torch.bfloat16, torch.get_num_threads()):
        raise MemoryError(f"no memory for the activations of {arguments.batch} rows")


def few_rows_linear(
    x: Float[Tensor, "b in"], weight: Real[Tensor, "out in"], scales: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "b out"]:
    """Compute x W^T for a few rows, reading the contiguous weight once; `in` must be a multiple of MULTIPLE.

    Args:
        x: rows.
        weight: of a type of DTYPES, or 8-bit codes.
        scales: of codes, contiguous and in fp32: W = weight * scales.
    """
    rows = x.to(torch.float32).contiguous()
    y = rows.new_empty(len(x), len(weight))
    scale = None if scales is None else scales.data_ptr()
    arguments = Linear(weight.data_ptr(), scale, rows.data_ptr(), y.data_ptr(), *weight.shape, len(x))
    call("mmrnn_few_rows_linear", arguments, weight.dtype)
    return y.to(x.dtype)
