"""The gated delta rule as a call of WKV-7."""

from jaxtyping import Float
from torch import Tensor

from ..common.dtypes import accumulation_dtype
from ..common.segments import Implementation, Segments


def through_wkv7(
    run: Implementation,
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    g: Float[Tensor, "b t h *decays"],
    beta: Float[Tensor, "b t h"],
    state: Float[Tensor, "n h k v"] | None,
    cu_seqlens: Segments | Tensor | None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute the result of `timed_reference` by an implementation of WKV-7, whose inputs are made in fp32 or fp64.

    Args:
        run: takes `r g k v a b state cu_seqlens`, where g are the logarithms of the decays.
        g: `b t h`, or `b t h k` for a decay of each key.
    """
    dtype = accumulation_dtype(q, k, v, g, beta, state)
    g = (g if g.dim() == 4 else g[..., None]).to(dtype)
    g = g.masked_fill(g > 0, 0)
    k = k.to(dtype)  # once, so that the gradients of both uses are added before they are rounded
    write = beta[..., None] * k
    # What the decayed state holds at k is subtracted: k diag(exp(g)) S.
    read = -k * g.exp()
    return run(q, g.expand_as(write), write, v, read, write, state, cu_seqlens)
