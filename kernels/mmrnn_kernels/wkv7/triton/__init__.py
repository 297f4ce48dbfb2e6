"""WKV-7 on a GPU, in Triton, which is imported by the first call. The maths is in ../README.md."""

from jaxtyping import Float, Int
from torch import Tensor

from ...gpu import check_states, obstacle

SIZES = (32, 64, 128)
"""Of a head: what the kernels are compiled and held to bounds for."""


def blocked(*inputs: Tensor | None) -> str | None:
    """Why this cannot run on the inputs of the operator, or None."""
    return obstacle(inputs[:7], inputs[0].shape[-1], inputs[3].shape[-1], SIZES)


def triton(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "n h k v"] | None = None,
    bounds: Int[Tensor, " bounds"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """The same as `reference`, also of packed rows. Differentiable once.

    Raises:
        ValueError: bounds that do not fit the row or the number of states.
    """
    from .ops import forward

    check_states("wkv7", state, bounds)
    return forward(r, w, k, v, a, b, state, bounds)
