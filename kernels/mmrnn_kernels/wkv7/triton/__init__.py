"""WKV-7 on a GPU in Triton, which the first call imports. ../README.md has the mathematics."""

from jaxtyping import Float, Int
from torch import Tensor

from ...common.checks import check_state_count
from ...common.segments import Segments, edges_of
from ...common.triton.availability import wkv_unavailable_reason

HEAD_SIZES = (32, 64, 128)
"""Head sizes that the kernels are compiled for."""


def unavailable_reason(*inputs: Tensor | Segments | None) -> str | None:
    """Return why this backend cannot run on the inputs of the operator, or None."""
    return wkv_unavailable_reason(inputs[:7], inputs[0].shape[-1], inputs[3].shape[-1], HEAD_SIZES)


def wkv7_triton(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the result of `wkv7_reference`, also of packed rows. Differentiable once.

    Raises:
        ValueError: cu_seqlens does not fit the row or the number of states.
    """
    from .ops import forward

    edges = edges_of(cu_seqlens)
    if edges is not None:
        check_state_count("wkv7", state, len(edges) - 1)
    return forward(r, w, k, v, a, b, state, edges)
