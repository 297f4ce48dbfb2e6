"""The selective scan on a GPU in Triton, which the first call imports. ../README.md has the mathematics."""

from jaxtyping import Float, Int
from torch import Tensor

from ...common.checks import check_state_count
from ...common.segments import Segments, edges_of
from ...common.triton import availability

STATE_SIZES = (8, 16, 32, 64)
"""States of a channel that the kernels are compiled for."""


def unavailable_reason(*inputs: Tensor | Segments | None) -> str | None:
    """Return why this backend cannot run on the inputs of the operator, or None."""
    if reason := availability.unavailable_reason(inputs[:6]):
        return reason
    states = inputs[2].shape[-1]
    if states not in STATE_SIZES:
        return f"a channel must have {', '.join(map(str, STATE_SIZES))} states, got {states}"
    return None


def selective_scan_triton(
    x: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    a: Float[Tensor, "d s"],
    b: Float[Tensor, "b t s"],
    c: Float[Tensor, "b t s"],
    state: Float[Tensor, "n d s"] | None = None,
    cu_seqlens: Int[Tensor, " edges"] | Segments | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "n d s"]]:
    """Compute the result of `selective_scan_reference`, also of packed rows. Differentiable once.

    Raises:
        ValueError: cu_seqlens does not fit the row or the number of states.
    """
    from .ops import forward

    edges = edges_of(cu_seqlens)
    if edges is not None:
        check_state_count("selective_scan", state, len(edges) - 1)
    return forward(x, dt, a, b, c, state, edges)
