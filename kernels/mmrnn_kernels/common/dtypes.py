"""Data types that the operators read and accumulate in."""

from functools import reduce

import torch
from torch import Tensor

FP32_COMPUTE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Types of inputs that the native and the Triton backends take; both compute in fp32."""

DTYPES = (*FP32_COMPUTE_DTYPES, torch.float64)
"""Types of inputs that the operators take; fp64 is for the others."""


def accumulation_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the type of states and sums: fp32, or fp64 if one input is fp64."""
    dtypes = [tensor.dtype for tensor in tensors if tensor is not None]
    return reduce(torch.promote_types, dtypes, torch.float32)


def contiguous_fp32(x: Tensor | None) -> Tensor | None:
    """Convert to a contiguous fp32 tensor; None stays None."""
    return None if x is None else x.to(torch.float32).contiguous()
