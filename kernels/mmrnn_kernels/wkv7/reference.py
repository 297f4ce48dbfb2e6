"""WKV-7 as the paper prints it: a loop over time, with which every other implementation is compared."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.decay import decay
from ..common.dtypes import accumulation_dtype


def wkv7_reference(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Goose recurrence of Peng et al. 2025 (arXiv:2503.14456), position by position.

    S_{t+1} = diag(exp(-exp(w_t))) S_t + b_t^T (a_t S_t) + k_t^T v_t,  y_t = r_t S_{t+1}
    """
    out_dtype, dtype = v.dtype, accumulation_dtype(r, w, k, v, a, b, state)
    r, w, k, v, a, b = (x.to(dtype) for x in (r, w, k, v, a, b))
    if state is None:
        state = v.new_zeros(v.shape[0], *r.shape[2:], v.shape[-1])
    state = state.to(dtype)
    d = decay(w)

    out = []
    for t in range(v.shape[1]):
        read = (a[:, t, :, :, None] * state).sum(-2, keepdim=True)  # b h 1 v
        state = d[:, t, :, :, None] * state + b[:, t, :, :, None] * read + k[:, t, :, :, None] * v[:, t, :, None, :]
        out.append((r[:, t, :, :, None] * state).sum(-2))  # b h v
    return torch.stack(out, 1).to(out_dtype), state
