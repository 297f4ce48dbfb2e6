"""WKV-6 on a GPU, in Triton, which is imported by the first call. The maths is in ../README.md."""

import sys
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIZES = (32, 64, 128)
"""Of a head: what the kernels are compiled and held to bounds for."""


def blocked(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, *rest: Tensor | None) -> str | None:
    """Why this cannot run on the inputs of the operator, or None."""
    tensors = [x for x in (r, k, v, w, u, *rest[:1]) if x is not None]
    for x in tensors:
        if x.device.type != "cuda" and not interpreted():
            return f"it needs CUDA tensors, got one on {x.device}"
        if x.device != r.device:
            return f"it needs all tensors on one device, got {r.device} and {x.device}"
        if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"it computes in fp32, got {x.dtype}"
    key, value = r.shape[-1], v.shape[-1]
    if key != value or key not in SIZES:
        return f"keys and values must have the same size, {', '.join(map(str, SIZES))}, got {key} and {value}"
    return missing() or (too_old(r.device.index) if r.is_cuda else None)


def triton(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "*time h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    bounds: Int[Tensor, " bounds"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """The same as `reference`, also of packed rows. A `w` of `h k` is one decay for all positions. Differentiable once.

    Raises:
        ValueError: bounds that do not fit the row or the number of states.
    """
    from .ops import forward

    if bounds is not None and state is not None and len(state) != len(bounds) - 1:
        raise ValueError(f"wkv: {len(bounds) - 1} segments need as many states, got state {list(state.shape)}")
    return forward(r, k, v, w, u, state, bounds)


def step(
    r: Float[Tensor, "b h k"],
    k: Float[Tensor, "b h k"],
    v: Float[Tensor, "b h v"],
    w: Float[Tensor, "*b h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"],
) -> Float[Tensor, "b h v"]:
    """One position: returns y and moves `state` (fp32, contiguous) on where it lies. No gradients.

    Raises:
        RuntimeError: this backend cannot run on the inputs.
        ValueError: the state cannot be updated in place.
    """
    reason = blocked(r, k, v, w, u, state)
    if reason:
        raise RuntimeError(f"wkv: backend 'triton' cannot run here: {reason}")
    if state.dtype != torch.float32 or not state.is_contiguous():
        raise ValueError(f"wkv: only a contiguous fp32 state moves on in place, got {state.dtype}; convert it once")
    from .ops import advance

    return advance(r, k, v, w, u, state)


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
