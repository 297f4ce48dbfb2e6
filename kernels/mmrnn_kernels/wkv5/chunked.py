"""WKV-5 in chunks: WKV-6 with the decay repeated. Powers prepared beforehand were tried and are no faster."""

from jaxtyping import Float
from torch import Tensor

from ..inputs import accumulator
from ..wkv6.chunked import chunked as wkv6


def chunked(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "*time h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """The same as `reference`. The gradient of w is summed in the accumulator's type, whatever type w has."""
    return wkv6(r, k, v, w.to(accumulator(r, k, v, w, u, state)).expand_as(r), u, state)
