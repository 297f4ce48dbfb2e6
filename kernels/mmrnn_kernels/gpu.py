"""What the Triton backends ask before they run. Triton itself is imported by the first call."""

import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def obstacle(tensors: Iterable[Tensor | None], key: int, value: int, sizes: tuple[int, ...]) -> str | None:
    """Why kernels for heads of these sizes cannot run on these tensors, or None."""
    if reason := unusable(tensors):
        return reason
    if key != value or key not in sizes:
        return f"keys and values must have the same size, {', '.join(map(str, sizes))}, got {key} and {value}"
    return None


def unusable(tensors: Iterable[Tensor | None]) -> str | None:
    """Why kernels cannot run on these tensors, whatever their sizes, or None."""
    given = [x for x in tensors if x is not None]
    device = given[0].device
    for x in given:
        if x.device.type != "cuda" and not interpreted():
            return f"it needs CUDA tensors, got one on {x.device}"
        if x.device != device:
            return f"it needs all tensors on one device, got {device} and {x.device}"
        if x.dtype not in TYPES:
            return f"it computes in fp32, got {x.dtype}"
    return missing() or (too_old(device.index) if device.type == "cuda" else None)


def check_states(op: str, state: Tensor | None, bounds: Tensor | None) -> None:
    """Every segment of a packed row has a state of its own.

    Raises:
        ValueError: there are more or fewer.
    """
    if bounds is not None and state is not None and len(state) != len(bounds) - 1:
        raise ValueError(f"{op}: {len(bounds) - 1} segments need as many states, got state {list(state.shape)}")


def interpreted() -> bool:
    """Whether Triton was told to run kernels in Python (TRITON_INTERPRET=1), which CPU tensors are good for."""
    found = sys.modules.get("triton")
    return found is not None and found.knobs.runtime.interpret


@cache
def missing() -> str | None:
    return None if find_spec("triton") else "triton is not installed, `pip install triton` (Linux only)"


@cache
def too_old(device: int) -> str | None:
    if torch.version.hip:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 8 else f"it needs a GPU of compute capability 8.0 or more, got {major}.{minor}"


# What `torch.compiler.assume_constant_result` sets: a traced model asks once and keeps the answer.
for question in (interpreted, missing, too_old):
    question._dynamo_marked_constant = True
