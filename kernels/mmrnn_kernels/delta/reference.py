"""Gated delta rule as the papers print it: a loop over time, with which every other implementation is compared."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.dtypes import accumulation_dtype
from ..common.segments import Implementation, Segments

PADDING = (0.0, 0.0, 0.0, 0.0, 0.0)
"""Values of q, k, v, g, beta at a padded position: no writes and a decay of one leave the state unchanged."""


def delta_reference(
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    g: Float[Tensor, "b t h decays"],
    beta: Float[Tensor, "b t h one"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Compute the recurrence of arXiv:2412.06464 (10) and arXiv:2510.26692 (1), position by position.

    S' = diag(exp(g_t)) S_t,  S_{t+1} = S' + beta_t k_t^T (v_t - k_t S'),  y_t = q_t S_{t+1}

    Args:
        g: a decay for each key, or one for all (decays = 1).
    """
    out_dtype, dtype = v.dtype, accumulation_dtype(q, k, v, g, beta, state)
    q, k, v, g, beta = (x.to(dtype) for x in (q, k, v, g, beta))
    if state is None:
        state = v.new_zeros(v.shape[0], *q.shape[2:], v.shape[-1])
    state = state.to(dtype)
    decay = g.masked_fill(g > 0, 0).exp()

    out = []
    for t in range(v.shape[1]):
        state = decay[:, t, :, :, None] * state
        held = (k[:, t, :, :, None] * state).sum(-2)  # b h v
        change = beta[:, t] * (v[:, t] - held)
        state = state + k[:, t, :, :, None] * change[:, :, None]
        out.append((q[:, t, :, :, None] * state).sum(-2))  # b h v
    return torch.stack(out, 1).to(out_dtype), state


def timed_reference(
    run: Implementation,
    q: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    g: Float[Tensor, "b t h *decays"],
    beta: Float[Tensor, "b t h"],
    state: Float[Tensor, "n h k v"] | None,
    cu_seqlens: Segments | Tensor | None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Run `delta_reference`, extended to packed rows, on g of `b t h` or `b t h k`."""
    return run(q, k, v, g if g.dim() == 4 else g[..., None], beta[..., None], state, cu_seqlens)
