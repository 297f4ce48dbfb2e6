"""WKV-7 of log-decays in chunks of matrix products in plain PyTorch (../wkv7/chunked.py)."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.autograd import register_chunked
from ..wkv7 import chunked as wkv7


def log_wkv7_chunked(
    r: Float[Tensor, "b t h k"],
    g: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Compute WKV-7 with the decay exp(g). Differentiable once."""
    return wkv7.call_chunked(forward, (r, g, k, v, a, b), state)


@torch.library.custom_op("mmrnn::delta_chunked", mutates_args=())
def forward(
    r: Tensor,
    g: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    chunk: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the output, the final state and, with `save`, the states that the chunks start from."""
    return wkv7.run_forward((r, g, k, v, a, b), state, chunk, save, logarithms=True)


@torch.library.custom_op("mmrnn::delta_chunked_backward", mutates_args=())
def backward(
    r: Tensor,
    g: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    chunk_states: Tensor,
    dout: Tensor,
    dstate: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, g, k, v, a, b and the initial state."""
    return wkv7.run_backward((r, g, k, v, a, b), chunk_states, dout, dstate, chunk, logarithms=True)


register_chunked(forward, backward, value=3)
