"""WKV-6 as the paper prints it: a loop over time, with which every other implementation is compared."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.decay import decay
from ..common.dtypes import accumulation_dtype


def wkv6_reference(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "b t h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Finch recurrence of Peng et al. 2024 (arXiv:2404.05892), position by position.

    y_t = r_t (S_t + diag(u) k_t^T v_t),  S_{t+1} = diag(exp(-exp(w_t))) S_t + k_t^T v_t
    """
    out_dtype, dtype = v.dtype, accumulation_dtype(r, k, v, w, u, state)
    r, k, v, w, u = (x.to(dtype) for x in (r, k, v, w, u))
    if state is None:
        state = v.new_zeros(v.shape[0], *u.shape, v.shape[-1])
    state = state.to(dtype)
    d = decay(w)

    out = []
    for t in range(v.shape[1]):
        kv = k[:, t, :, :, None] * v[:, t, :, None, :]  # b h k v
        out.append((r[:, t, :, :, None] * (state + u[..., None] * kv)).sum(-2))  # b h v
        state = d[:, t, :, :, None] * state + kv
    return torch.stack(out, 1).to(out_dtype), state
