"""WKV-6 on a GPU, in Triton, which is imported by the first call. The maths is in ../README.md."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...gpu import check_states, obstacle

SIZES = (32, 64, 128)
"""Of a head: what the kernels are compiled and held to bounds for."""


def blocked(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, *rest: Tensor | None) -> str | None:
    """Why this cannot run on the inputs of the operator, or None."""
    return obstacle((r, k, v, w, u, *rest[:1]), r.shape[-1], v.shape[-1], SIZES)


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

    check_states("wkv", state, bounds)
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
