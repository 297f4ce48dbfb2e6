"""WKV-5 in chunks: WKV-6 with the decay repeated. Preparing the powers of the decay was tried and is no faster."""

from jaxtyping import Float
from torch import Tensor

from ..common.dtypes import accumulation_dtype
from ..wkv6.chunked import wkv6_chunked


def wkv5_chunked(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "*time h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Same result as `wkv5_reference`. The gradient of w is summed in the accumulation type, whatever type w has."""
    return wkv6_chunked(r, k, v, w.to(accumulation_dtype(r, k, v, w, u, state)).expand_as(r), u, state)
