"""WKV-6 on a GPU in Triton, which the first call imports. ../README.md has the mathematics."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...common.checks import check_state_count
from ...common.segments import Segments, edges_of
from ...common.triton.availability import wkv_unavailable_reason

HEAD_SIZES = (32, 64, 128)
"""Head sizes that the kernels are compiled for."""


def unavailable_reason(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, *rest: Tensor | Segments | None
) -> str | None:
    """Return why this backend cannot run on the inputs of the operator, or None."""
    return wkv_unavailable_reason((r, k, v, w, u, *rest[:1]), r.shape[-1], v.shape[-1], HEAD_SIZES)


def wkv6_triton(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "*time h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the result of `wkv6_reference`, also of packed rows. A `w` of `h k` is one decay for all positions.

    Differentiable once.

    Raises:
        ValueError: cu_seqlens does not fit the row or the number of states.
    """
    from .ops import forward

    edges = edges_of(cu_seqlens)
    if edges is not None:
        check_state_count("wkv", state, len(edges) - 1)
    return forward(r, k, v, w, u, state, edges)


def wkv6_triton_step(
    r: Float[Tensor, "b h k"],
    k: Float[Tensor, "b h k"],
    v: Float[Tensor, "b h v"],
    w: Float[Tensor, "*b h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"],
) -> Float[Tensor, "b h v"]:
    """Compute y of one position and update `state` (fp32, contiguous) in place. No gradients.

    Raises:
        RuntimeError: this backend cannot run on the inputs.
        ValueError: the state cannot be updated in place.
    """
    reason = unavailable_reason(r, k, v, w, u, state)
    if reason:
        raise RuntimeError(f"wkv: backend 'triton' cannot run here: {reason}")
    if state.dtype != torch.float32 or not state.is_contiguous():
        raise ValueError(
            f"wkv: only a contiguous fp32 state can be updated in place, got {state.dtype} with strides "
            f"{state.stride()}; convert it once with .float().contiguous()"
        )
    from .ops import step

    return step(r, k, v, w, u, state)
