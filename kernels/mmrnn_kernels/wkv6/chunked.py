"""WKV-6 in chunks: matrix products in plain PyTorch, exact for any decay. The maths is in README.md."""

import math
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..inputs import accumulator
from .gradient import Gradient
from .reference import decay
from .tile import Tile

TILE = 2**16
"""Numbers of one input in a tile: what a tile works on stays near the cache of a core."""

SPAN = 256
"""Positions of a tile, where there are as many; the other way it grows by heads and rows."""


def chunked(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "b t h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """The same as `reference`, by products of decays that never exceed one. Differentiable once."""
    inputs = (r, k, v, w, u) if state is None else (r, k, v, w, u, state)
    dtype = accumulator(*inputs)
    if state is None:
        state = v.new_zeros(v.shape[0], *u.shape, v.shape[-1], dtype=dtype)
    if r.shape[1] == 1:
        return step(r, k, v, w, u, state.to(dtype))
    save = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    out, state, _ = forward(r, k, v, w, u.to(dtype), state.to(dtype), chunk_length(r.shape[1]), save)
    return out, state


def step(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One position: the recurrence itself."""
    dtype = state.dtype
    r, k, w = (x.to(dtype).squeeze(1).unsqueeze(-1) for x in (r, k, w))  # b h k 1
    value = v.to(dtype).squeeze(1)  # b h v
    out = (r * state).sum(-2) + (r * k * u.to(dtype).unsqueeze(-1)).sum(-2) * value
    state = torch.addcmul(k * value.unsqueeze(-2), decay(w), state)
    return out.to(v.dtype).unsqueeze(1), state


def chunk_length(length: int) -> int:
    """Positions of a chunk, a power of two: short sequences have no use for long ones."""
    if length <= 64:
        return min(16, 1 << (length - 1).bit_length())
    return 32 if length <= 256 else 64


class Piece(NamedTuple):
    """One tile of the whole: where it lies, how large it is and which of the chunks' states are its own."""

    place: tuple[slice, slice, slice]  # of b t h
    size: tuple[int, int, int]  # rows, heads, chunks
    chunks: slice


def plan(batch: int, length: int, heads: int, width: int, chunk: int, device: torch.device) -> list[Piece]:
    """Cut the whole into tiles, earlier ones first."""
    # Only a CPU has a cache to fit in.
    budget, longest = (TILE, SPAN) if device.type == "cpu" else (2**10 * TILE, length)
    lanes = max(1, budget // (width * min(longest, length)))
    rows, columns = max(1, lanes // heads), min(heads, lanes)
    pieces, done = [], 0
    for row in cut(batch, rows):
        for column in cut(heads, columns):
            for span in cut(length, longest):
                size = (row.stop - row.start, column.stop - column.start, math.ceil((span.stop - span.start) / chunk))
                pieces.append(Piece((row, span, column), size, slice(done, done + math.prod(size))))
                done += math.prod(size)
    return pieces


def cut(total: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, total)) for start in range(0, total, most)]


@torch.library.custom_op("mmrnn::wkv6_chunked", mutates_args=())
def forward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, chunk: int, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the final state and, if they are to be saved, the states that the chunks start from."""
    batch, length, heads, key = r.shape
    value = v.shape[-1]
    out, state = v.new_empty(v.shape), state.clone(memory_format=torch.contiguous_format)
    entries = new_entries(r, state, chunk, save)
    make = cache(lambda *size: Tile(*size, chunk, key, value, state))
    for place, size, chunks in plan(batch, length, heads, max(key, value), chunk, r.device):
        rows, _, columns = place
        tile = make(*size)
        tile.load(place, r, k, v, w)
        tile.combine(u[columns, None])
        tile.forward(state[rows, columns], entries[chunks] if save else tile.entries)
        tile.write(place, out, tile.out)
    return out, state, entries


@torch.library.custom_op("mmrnn::wkv6_chunked_backward", mutates_args=())
def backward(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    entries: Tensor,
    dout: Tensor,
    dstate: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of r, k, v, w, u and the first state."""
    batch, length, heads, key = r.shape
    value = v.shape[-1]
    dr, dk, dv, dw = (x.new_empty(x.shape) for x in (r, k, v, w))
    du, dstate = u.new_zeros(u.shape), dstate.clone(memory_format=torch.contiguous_format)
    make = cache(lambda *size: Gradient(*size, chunk, key, value, dstate))
    for place, size, chunks in reversed(plan(batch, length, heads, max(key, value), chunk, r.device)):
        rows, _, columns = place
        tile = make(*size)
        tile.load(place, r, k, v, w, dout)
        tile.combine(u[columns, None])
        du[columns] += tile.backward(u[columns, None], dstate[rows, columns], entries[chunks])
        for target, source in ((dr, tile.drk[0]), (dk, tile.drk[1]), (dv, tile.dv), (dw, tile.dw)):
            tile.write(place, target, source)
    return dr, dk, dv, dw, du, dstate


def new_entries(r: Tensor, state: Tensor, chunk: int, save: bool) -> Tensor:
    batch, length, heads, _ = r.shape
    return state.new_empty(batch * heads * -(-length // chunk) if save else 0, *state.shape[-2:])


@forward.register_fake
def _(*inputs):
    r, _, v, _, _, state, chunk, save = inputs
    return v.new_empty(v.shape), state.new_empty(state.shape), new_entries(r, state, chunk, save)


@backward.register_fake
def _(*inputs):
    r, k, v, w, u, _, _, dstate, _ = inputs
    return tuple(x.new_empty(x.shape) for x in (r, k, v, w, u, dstate))


def remember(ctx, inputs, output) -> None:
    r, k, v, w, u, _, ctx.chunk, _ = inputs
    _, state, entries = output
    ctx.save_for_backward(r, k, v, w, u, entries)
    ctx.state_shape = state.shape
    ctx.set_materialize_grads(False)


def differentiate(ctx, dout: Tensor | None, dstate: Tensor | None, _):
    r, k, v, w, u, entries = ctx.saved_tensors
    dout = v.new_zeros(v.shape) if dout is None else dout
    dstate = entries.new_zeros(ctx.state_shape) if dstate is None else dstate
    return *backward(r, k, v, w, u, entries, dout, dstate, ctx.chunk), None, None


forward.register_autograd(differentiate, setup_context=remember)
