"""WKV-7 in chunks: matrix products in plain PyTorch, exact for any decay. README.md has the mathematics."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..common.autograd import register_chunked
from ..common.decay import log_decay
from ..common.dtypes import accumulation_dtype
from ..common.tiling import TileIndex, chunk_length, empty_chunk_states, plan_tiles
from .chunk_levels import Chunks, ascend, descend
from .reference import wkv7_reference

MAX_CHUNK = 32
"""Positions of a chunk: each has twice as many scores in one twice as long, and no time is saved."""

PADDING = (0.0, -torch.inf, 0.0, 0.0, 0.0, 0.0)
"""Values of r, w, k, v, a, b at a padded position: no writes and a decay of one leave the state unchanged."""

LOG_PADDING = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""The same where w is the logarithm of the decay."""

MIN_LOG_DECAY = -(2.0**14)
"""Below it a decay is 0 in any precision; sums of infinite logarithms would not be numbers."""


def wkv7_chunked(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Compute the result of `wkv7_reference`, by products of decays that never exceed one. Differentiable once."""
    if r.shape[1] == 1:
        return wkv7_reference(r, w, k, v, a, b, state)
    return call_chunked(forward, (r, w, k, v, a, b), state)


def call_chunked(
    op: Callable[..., tuple[Tensor, Tensor, Tensor]], inputs: Sequence[Tensor], state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Call `forward`, or an op of the same arguments, with a state and the length of its chunks."""
    r, v = inputs[0], inputs[3]
    dtype = accumulation_dtype(*inputs, state)
    given = [x for x in (*inputs, state) if x is not None]
    if state is None:
        state = v.new_zeros(v.shape[0], *r.shape[2:], v.shape[-1], dtype=dtype)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    out, state, _ = op(*inputs, state.to(dtype), min(MAX_CHUNK, chunk_length(r.shape[1])), save)
    return out, state


def load(tile: TileIndex, chunk: int, x: Tensor, dtype: torch.dtype, missing: float = 0.0) -> Tensor:
    """Read a tile of `b t h c` by chunks, `n c k`; positions that the last chunk lacks get `missing`."""
    x = x[tile.index].transpose(1, 2).to(dtype)
    lacking = tile.shape[2] * chunk - x.shape[2]
    return F.pad(x, (0, 0, 0, lacking), value=missing).reshape(-1, chunk, x.shape[-1])


def write(tile: TileIndex, target: Tensor, source: Tensor) -> None:
    """Write chunks (`n c k`) into a tile of `b t h c`."""
    target = target[tile.index]
    lanes = source.reshape(*tile.shape[:2], -1, source.shape[-1])
    target.copy_(lanes[:, :, : target.shape[1]].transpose(1, 2))


def prepare(
    tile: TileIndex, chunk: int, dtype: torch.dtype, inputs: Sequence[Tensor], logarithms: bool
) -> tuple[list[Tensor], Chunks, Tensor]:
    """Read the inputs of a tile, w as the log-decay; compute its chunks; stack zeros for U and V, `n c 2 v`."""
    paddings = LOG_PADDING if logarithms else PADDING
    r, w, k, v, a, b = (load(tile, chunk, x, dtype, missing) for x, missing in zip(inputs, paddings, strict=True))
    rate = w.clamp(min=MIN_LOG_DECAY) if logarithms else log_decay(w)
    return [r, rate, k, v, a, b], ascend(r, k, a, b, rate), torch.stack([torch.zeros_like(v), v], 2)


def solve(chunks: Chunks, keys: Tensor, values: Tensor, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """Multiply by `(1 - A_ab)^-1` (backwards by its transpose) the factor of the state and what is added to it."""
    n, c, _, _ = chunks.reads.shape
    matrix = -chunks.scores.view(n, c, 2, c, 2)[:, :, 0, :, 0]
    matrix = matrix.mT if backwards else matrix
    joined = torch.cat([keys, values], -1)
    solved = torch.linalg.solve_triangular(matrix, joined, upper=backwards, unitriangular=True)
    return solved[..., : keys.shape[-1]], solved[..., keys.shape[-1] :]


def solve_reads(chunks: Chunks, v: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (8): X and Z of `U = X S + Z`, S the state that the chunk starts from."""
    scores = chunks.scores.view(*chunks.reads.shape[:3], -1, 2)
    return solve(chunks, chunks.reads[:, :, 0], scores[:, :, 0, :, 1] @ v)


def solve_reads_backward(chunks: Chunks, dout: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (11): the gradient of Z as `x G + y`, G the gradient of the state that the chunk ends with."""
    scores = chunks.scores.view(*chunks.reads.shape[:3], -1, 2)
    return solve(chunks, chunks.writes[:, :, 0], scores[:, :, 1, :, 0].mT @ dout, backwards=True)


def carry(
    tile: TileIndex,
    state: Tensor,
    solution: tuple[Tensor, Tensor],
    values: Tensor,
    keys: Tensor,
    decay: Tensor,
    chunk_states: Tensor,
    backwards: bool = False,
) -> None:
    """Update `state` chunk by chunk; `chunk_states` gets it before each, `values[..., 0, :]` the U of each."""
    per_chunk = (*solution, values, keys.flatten(1, 2).mT, decay.unsqueeze(-1), chunk_states)
    steps = [*zip(*(x.view(-1, tile.shape[2], *x.shape[1:]).unbind(1) for x in per_chunk), strict=True)]
    now = state.flatten(0, 1)
    for x, z, value, write, factor, before in reversed(steps) if backwards else steps:
        before.copy_(now)
        value[:, :, 0] = torch.baddbmm(z, x, now)
        now = torch.baddbmm(factor * now, write, value.flatten(1, 2))
    state.copy_(now.view(state.shape))


def without_autocast(x: Tensor) -> torch.autocast:
    """Switch autocast off, which would round the factors of every matrix product."""
    return torch.autocast(x.device.type, enabled=False)


def run_forward(
    inputs: Sequence[Tensor], state: Tensor, chunk: int, save: bool, *, logarithms: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the output, the final state and, with `save`, the states that the chunks start from.

    Args:
        inputs: r, w, k, v, a, b.
        logarithms: w are the logarithms of the decays.
    """
    r, v = inputs[0], inputs[3]
    batch, length, heads, key = r.shape
    value = v.shape[-1]
    out, state = v.new_empty(v.shape), state.clone(memory_format=torch.contiguous_format)
    chunk_states = empty_chunk_states(r, state, chunk, save)
    for tile in plan_tiles(batch, length, heads, max(key, value), chunk, r.device):
        rows, _, columns = tile.index
        before = chunk_states[tile.chunks] if save else state.new_empty(math.prod(tile.shape), key, value)
        with without_autocast(r):
            loaded, chunks, values = prepare(tile, chunk, state.dtype, inputs, logarithms)
            solution = solve_reads(chunks, loaded[3])
            carry(tile, state[rows, columns], solution, values, chunks.writes, chunks.decay, before)
            scores = chunks.scores.view(-1, chunk, 2, 2 * chunk)[:, :, 1]
            write(tile, out, torch.baddbmm(chunks.reads[:, :, 1] @ before, scores, values.flatten(1, 2)))
    return out, state, chunk_states


def run_backward(
    inputs: Sequence[Tensor],
    chunk_states: Tensor,
    dout: Tensor,
    dstate: Tensor,
    chunk: int,
    *,
    logarithms: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, w, k, v, a, b and the initial state."""
    r, v = inputs[0], inputs[3]
    batch, length, heads, key = r.shape
    grads = [x.new_empty(x.shape) for x in inputs]
    dstate = dstate.clone(memory_format=torch.contiguous_format)
    for tile in reversed(plan_tiles(batch, length, heads, max(key, v.shape[-1]), chunk, r.device)):
        rows, _, columns = tile.index
        before = chunk_states[tile.chunks]
        after = torch.empty_like(before)
        with without_autocast(r):
            loaded, chunks, values = prepare(tile, chunk, dstate.dtype, inputs, logarithms)
            x, z = solve_reads(chunks, loaded[3])
            values[:, :, 0] = torch.baddbmm(z, x, before)
            dy = load(tile, chunk, dout, dstate.dtype)
            solution = solve_reads_backward(chunks, dy)
            dvalues = torch.stack([torch.zeros_like(dy), dy], 2)  # n c 2 v
            carry(tile, dstate[rows, columns], solution, dvalues, chunks.reads, chunks.decay, after, backwards=True)
            found = tile_gradients(loaded, chunks, values, dvalues, before, after, logarithms)
        for target, source in zip(grads, found, strict=True):
            write(tile, target, source)
    return *grads, dstate


def tile_gradients(
    inputs: list[Tensor],
    chunks: Chunks,
    values: Tensor,
    dreads: Tensor,
    before: Tensor,
    after: Tensor,
    logarithms: bool,
) -> tuple[Tensor, ...]:
    """Compute the gradients of r, w, k, v, a, b, equation (13) and down the levels.

    `dreads` has the gradients of what is read, Z and Y (`n c 2 v`), `after` those of the states at the ends of chunks.
    """
    r, rate, k, _, _, b = inputs
    n, c, _, key = chunks.reads.shape
    values, dreads = values.flatten(1, 2), dreads.flatten(1, 2)
    dscores = dreads @ values.mT
    dread_keys, dwrite_keys = (dreads @ before.mT).view(n, c, 2, key), (values @ after.mT).view(n, c, 2, key)
    dv = (chunks.scores.mT @ dreads).view(n, c, 2, -1)[:, :, 1] + chunks.writes[:, :, 1] @ after
    around = chunks.decay * (before * after).sum(-1)
    dlog = descend(chunks, dscores, dread_keys, dwrite_keys, around)

    own = dscores.view(n, c, 2, c, 2).diagonal(dim1=1, dim2=3)[:, 1]  # n 2 c
    own_b, own_k = own.unsqueeze(-1).unbind(1)  # n c 1
    dr = dread_keys[:, :, 1] * rate.exp()  # r is read with the decay of its own position
    dlog = dlog + dr * r
    return (
        dr + own_b * b + own_k * k,
        dlog if logarithms else rate * dlog,
        dwrite_keys[:, :, 1] + own_k * r,
        dv,
        dread_keys[:, :, 0],
        dwrite_keys[:, :, 0] + own_b * r,
    )


@torch.library.custom_op("mmrnn::wkv7_chunked", mutates_args=())
def forward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    chunk: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the output, the final state and, with `save`, the states that the chunks start from."""
    return run_forward((r, w, k, v, a, b), state, chunk, save)


@torch.library.custom_op("mmrnn::wkv7_chunked_backward", mutates_args=())
def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    chunk_states: Tensor,
    dout: Tensor,
    dstate: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, w, k, v, a, b and the initial state."""
    return run_backward((r, w, k, v, a, b), chunk_states, dout, dstate, chunk)


register_chunked(forward, backward, value=3)
