"""Tensors as native code reads them: fp32 or bf16. It computes in fp32; fp16 comes and goes as fp32."""

import ctypes

import torch
from torch import Tensor

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def unreadable(*inputs: object) -> str | None:
    """Why native code cannot read one of the tensors among the inputs, or None."""
    for x in inputs:
        if isinstance(x, Tensor):
            if x.device.type != "cpu":
                return f"it needs CPU tensors, got one on {x.device}"
            if x.dtype not in TYPES:
                return f"it computes in fp32, got {x.dtype}"
    return None


class Rows(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("half", ctypes.c_int64))


def rows(x: Tensor | None) -> Rows:
    return Rows() if x is None else Rows(x.data_ptr(), x.dtype == torch.bfloat16)


def flat(x: Tensor | None) -> Tensor | None:
    """Contiguous."""
    if x is None:
        return None
    return (x.float() if x.dtype == torch.float16 else x).contiguous()


def single(x: Tensor | None) -> Tensor | None:
    """Contiguous, and fp32."""
    return None if x is None else x.to(torch.float32).contiguous()


def new(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory of the shape of x, and of its type where native code can write it."""
    return x.new_empty(x.shape, dtype=dtype or (torch.float32 if x.dtype == torch.float16 else x.dtype))
