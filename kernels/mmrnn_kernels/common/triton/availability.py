"""Reasons why the Triton backends cannot run. Triton itself is not imported."""

import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from ..dtypes import FP32_COMPUTE_DTYPES


def wkv_unavailable_reason(
    tensors: Iterable[Tensor | None], key: int, value: int, sizes: tuple[int, ...]
) -> str | None:
    """Return why the kernels for heads of these sizes cannot run on these tensors, or None."""
    if reason := unavailable_reason(tensors):
        return reason
    if key != value or key not in sizes:
        return f"keys and values must have the same size, {', '.join(map(str, sizes))}, got {key} and {value}"
    return None


def unavailable_reason(tensors: Iterable[Tensor | None]) -> str | None:
    """Return why Triton kernels cannot run on these tensors, or None."""
    present = [x for x in tensors if x is not None]
    device = present[0].device
    for x in present:
        if x.device.type != "cuda" and not is_interpreted():
            return f"it needs CUDA tensors, got one on {x.device}"
        if x.device != device:
            return f"it needs all tensors on one device, got {device} and {x.device}"
        if x.dtype not in FP32_COMPUTE_DTYPES:
            return f"it computes in fp32, got {x.dtype}"
    return missing_reason() or (old_gpu_reason(device.index) if device.type == "cuda" else None)


def is_interpreted() -> bool:
    """Return whether Triton runs kernels in Python (TRITON_INTERPRET=1), which takes CPU tensors."""
    triton = sys.modules.get("triton")
    return triton is not None and triton.knobs.runtime.interpret


@cache
def missing_reason() -> str | None:
    """Return a sentence if Triton is not installed."""
    return None if find_spec("triton") else "triton is not installed, `pip install triton` (Linux only)"


@cache
def old_gpu_reason(device: int) -> str | None:
    """Return a sentence if the GPU is too old for the kernels."""
    if torch.version.hip:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 8 else f"it needs a GPU of compute capability 8.0 or more, got {major}.{minor}"


# The mark of `torch.compiler.assume_constant_result`: a traced model calls once and keeps the result.
for function in (is_interpreted, missing_reason, old_gpu_reason):
    function._dynamo_marked_constant = True
