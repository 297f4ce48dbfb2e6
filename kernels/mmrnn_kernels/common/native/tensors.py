"""Tensors as the native code reads and writes them: fp32 or bf16. fp16 is converted to and from fp32."""

import ctypes

import torch
from torch import Tensor

from ..dtypes import FP32_COMPUTE_DTYPES


def unreadable_reason(*inputs: object) -> str | None:
    """Return why native code cannot read one of the tensors among the inputs, or None."""
    for x in inputs:
        if isinstance(x, Tensor):
            if x.device.type != "cpu":
                return f"it needs CPU tensors, got one on {x.device}"
            if x.dtype not in FP32_COMPUTE_DTYPES:
                return f"it computes in fp32, got {x.dtype}"
    return None


class TensorRef(ctypes.Structure):
    """Address and type of a contiguous tensor: `Tensor` of rows.h."""

    _fields_ = (("data", ctypes.c_void_p), ("is_bf16", ctypes.c_int64))


def tensor_ref(x: Tensor | None) -> TensorRef:
    """Describe a tensor; None is an address of zero."""
    return TensorRef() if x is None else TensorRef(x.data_ptr(), x.dtype == torch.bfloat16)


def pointer(x: Tensor | None) -> int | None:
    """Return the address of a tensor."""
    return None if x is None else x.data_ptr()


def contiguous(x: Tensor | None) -> Tensor | None:
    """Convert to a contiguous tensor of a type that native code reads."""
    if x is None:
        return None
    return (x.float() if x.dtype == torch.float16 else x).contiguous()


def empty_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory of the shape of x, of its type if native code can write it, else fp32."""
    return x.new_empty(x.shape, dtype=dtype or (torch.float32 if x.dtype == torch.float16 else x.dtype))
