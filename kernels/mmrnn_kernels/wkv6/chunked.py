"""WKV-6 in chunks: matrix products in plain PyTorch, exact for any decay. README.md has the mathematics."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.autograd import register_chunked
from ..common.decay import decay
from ..common.dtypes import accumulation_dtype
from ..common.tiling import chunk_length, empty_chunk_states, plan_tiles
from .chunk_tile import Tile
from .chunk_tile_backward import BackwardTile


def wkv6_chunked(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "b t h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Same result as `wkv6_reference`, by products of decays that never exceed one. Differentiable once."""
    inputs = (r, k, v, w, u) if state is None else (r, k, v, w, u, state)
    dtype = accumulation_dtype(*inputs)
    if state is None:
        state = v.new_zeros(v.shape[0], *u.shape, v.shape[-1], dtype=dtype)
    if r.shape[1] == 1:
        return one_position(r, k, v, w, u, state.to(dtype))
    save = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    out, state, _ = forward(r, k, v, w, u.to(dtype), state.to(dtype), chunk_length(r.shape[1]), save)
    return out, state


def one_position(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a single position (`b 1 h k`) by the recurrence."""
    dtype = state.dtype
    r, k, w = (x.to(dtype).squeeze(1).unsqueeze(-1) for x in (r, k, w))  # b h k 1
    value = v.to(dtype).squeeze(1)  # b h v
    out = (r * state).sum(-2) + (r * k * u.to(dtype).unsqueeze(-1)).sum(-2) * value
    state = torch.addcmul(k * value.unsqueeze(-2), decay(w), state)
    return out.to(v.dtype).unsqueeze(1), state


@torch.library.custom_op("mmrnn::wkv6_chunked", mutates_args=())
def forward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, chunk: int, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the output, the final state and, with `save`, the states that the chunks start from."""
    batch, length, heads, key = r.shape
    value = v.shape[-1]
    out, state = v.new_empty(v.shape), state.clone(memory_format=torch.contiguous_format)
    chunk_states = empty_chunk_states(r, state, chunk, save)
    make_tile = cache(lambda *shape: Tile(*shape, chunk, key, value, state))
    for index, shape, chunks in plan_tiles(batch, length, heads, max(key, value), chunk, r.device):
        rows, _, columns = index
        tile = make_tile(*shape)
        tile.load(index, r, k, v, w)
        tile.compute_scores(u[columns, None])
        tile.forward(state[rows, columns], chunk_states[chunks] if save else tile.chunk_states)
        tile.write(index, out, tile.out)
    return out, state, chunk_states


@torch.library.custom_op("mmrnn::wkv6_chunked_backward", mutates_args=())
def backward(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    chunk_states: Tensor,
    dout: Tensor,
    dstate: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, k, v, w, u and the initial state."""
    batch, length, heads, key = r.shape
    value = v.shape[-1]
    dr, dk, dv, dw = (x.new_empty(x.shape) for x in (r, k, v, w))
    du, dstate = u.new_zeros(u.shape), dstate.clone(memory_format=torch.contiguous_format)
    make_tile = cache(lambda *shape: BackwardTile(*shape, chunk, key, value, dstate))
    for index, shape, chunks in reversed(plan_tiles(batch, length, heads, max(key, value), chunk, r.device)):
        rows, _, columns = index
        tile = make_tile(*shape)
        tile.load(index, r, k, v, w, dout)
        tile.compute_scores(u[columns, None])
        du[columns] += tile.backward(u[columns, None], dstate[rows, columns], chunk_states[chunks])
        for target, source in ((dr, tile.drk[0]), (dk, tile.drk[1]), (dv, tile.dv), (dw, tile.dw)):
            tile.write(index, target, source)
    return dr, dk, dv, dw, du, dstate


register_chunked(forward, backward, value=2)
