"""The selective scan as the paper prints it: a loop over time, with which every other implementation is compared."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.dtypes import accumulation_dtype


def selective_scan_reference(
    x: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    a: Float[Tensor, "d s"],
    b: Float[Tensor, "b t s"],
    c: Float[Tensor, "b t s"],
    state: Float[Tensor, "b d s"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d s"]]:
    """Compute the recurrence of Gu and Dao 2023 (arXiv:2312.00752, algorithm 2), position by position.

    S_{t+1} = exp(dt_t^T a) * S_t + (dt_t x_t)^T b_t,  y_t = S_{t+1} c_t^T
    """
    out_dtype, dtype = x.dtype, accumulation_dtype(x, dt, a, b, c, state)
    x, dt, a, b, c = (one.to(dtype) for one in (x, dt, a, b, c))
    if state is None:
        state = x.new_zeros(len(x), *a.shape)
    state = state.to(dtype)

    out = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t, :, None] * a)  # b d s
        state = decay * state + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
        out.append((state * c[:, t, None]).sum(-1))  # b d
    return torch.stack(out, 1).to(out_dtype), state
