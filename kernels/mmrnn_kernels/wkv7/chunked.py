"""WKV-7 in chunks: matrix products in plain PyTorch, exact for any decay. The maths is in README.md."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..inputs import accumulator
from ..wkv6.chunked import Piece, chunk_length, new_entries, plan
from .chunk import Chunks, ascend, descend
from .reference import reference

LONGEST = 32
"""Positions of a chunk: of twice as many every one reads twice as many, and nothing is saved."""


def chunked(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """The same as `reference`, by products of decays that never exceed one. Differentiable once."""
    if r.shape[1] == 1:
        return reference(r, w, k, v, a, b, state)
    inputs = (r, w, k, v, a, b) if state is None else (r, w, k, v, a, b, state)
    dtype = accumulator(*inputs)
    if state is None:
        state = v.new_zeros(v.shape[0], *r.shape[2:], v.shape[-1], dtype=dtype)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    out, state, _ = forward(r, w, k, v, a, b, state.to(dtype), min(LONGEST, chunk_length(r.shape[1])), save)
    return out, state


def load(piece: Piece, chunk: int, x: Tensor, like: Tensor, missing: float = 0.0) -> Tensor:
    """A piece of `b t h c` by chunks, `n c k`; positions that the last one lacks get `missing`."""
    x = x[piece.place].transpose(1, 2).to(like.dtype)
    lacking = piece.size[2] * chunk - x.shape[2]
    return F.pad(x, (0, 0, 0, lacking), value=missing).reshape(-1, chunk, x.shape[-1])


def write(piece: Piece, target: Tensor, source: Tensor) -> None:
    target = target[piece.place]
    lanes = source.reshape(*piece.size[:2], -1, source.shape[-1])
    target.copy_(lanes[:, :, : target.shape[1]].transpose(1, 2))


def log_decay(w: Tensor) -> Tensor:
    # Above 10 the decay is 0 in any precision, and exp(w) may be infinite: its gradient would be 0 * inf.
    return -torch.exp(w.clamp(max=10.0))


def by_chunk(piece: Piece, x: Tensor) -> tuple[Tensor, ...]:
    """`n ...` to what one chunk of every lane has, in the order of time."""
    return x.view(-1, piece.size[2], *x.shape[1:]).unbind(1)


def solve(chunks: Chunks, keys: Tensor, values: Tensor, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """`(1 - A_ab)^-1` (backwards its transpose) times what depends on the state and what does not."""
    n, c, _, _ = chunks.reads.shape
    matrix = -chunks.scores.view(n, c, 2, c, 2)[:, :, 0, :, 0]
    matrix = matrix.mT if backwards else matrix
    both = torch.cat([keys, values], -1)
    found = torch.linalg.solve_triangular(matrix, both, upper=backwards, unitriangular=True)
    return found[..., : keys.shape[-1]], found[..., keys.shape[-1] :]


def unknowns(chunks: Chunks, v: Tensor) -> tuple[Tensor, Tensor]:
    """What the reads a meet, as `x S + y` of the state S that the chunk starts from."""
    scores = chunks.scores.view(*chunks.reads.shape[:3], -1, 2)
    return solve(chunks, chunks.reads[:, :, 0], scores[:, :, 0, :, 1] @ v)


def unknowns_back(chunks: Chunks, dout: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of that sum, as `x G + y` of the gradient G of the state that the chunk ends with."""
    scores = chunks.scores.view(*chunks.reads.shape[:3], -1, 2)
    return solve(chunks, chunks.writes[:, :, 0], scores[:, :, 1, :, 0].mT @ dout, backwards=True)


def carry(piece: Piece, state: Tensor, known: tuple[Tensor, Tensor], values: Tensor, keys: Tensor, whole: Tensor,
          entries: Tensor, backwards: bool = False) -> None:  # fmt: skip
    """From chunk to chunk: `state` moves on, `entries` get it before each, `values[..., 0, :]` the unknowns there."""
    pieces = (*known, values, keys.flatten(1, 2).mT, whole.unsqueeze(-1), entries)
    steps = [*zip(*(by_chunk(piece, x) for x in pieces), strict=True)]
    now = state.flatten(0, 1)
    for seen, fresh, value, written, decay, entry in reversed(steps) if backwards else steps:
        entry.copy_(now)
        value[:, :, 0] = torch.baddbmm(fresh, seen, now)
        now = torch.baddbmm(decay * now, written, value.flatten(1, 2))
    state.copy_(now.view(state.shape))


def exactly(x: Tensor) -> torch.autocast:
    """Autocast would round the factors of every matrix product."""
    return torch.autocast(x.device.type, enabled=False)


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
    """The output, the final state and, if they are to be saved, the states that the chunks start from."""
    batch, length, heads, key = r.shape
    value = v.shape[-1]
    out, state = v.new_empty(v.shape), state.clone(memory_format=torch.contiguous_format)
    entries = new_entries(r, state, chunk, save)
    for piece in plan(batch, length, heads, max(key, value), chunk, r.device):
        rows, _, columns = piece.place
        before = entries[piece.chunks] if save else state.new_empty(math.prod(piece.size), key, value)
        with exactly(r):
            inputs, chunks, values = prepare(piece, chunk, state, r, w, k, v, a, b)
            known = unknowns(chunks, inputs[3])
            carry(piece, state[rows, columns], known, values, chunks.writes, chunks.whole, before)
            reads = chunks.scores.view(-1, chunk, 2, 2 * chunk)[:, :, 1]
            write(piece, out, torch.baddbmm(chunks.reads[:, :, 1] @ before, reads, values.flatten(1, 2)))
    return out, state, entries


def prepare(piece: Piece, chunk: int, like: Tensor, *inputs: Tensor) -> tuple[list[Tensor], Chunks, Tensor]:
    """The inputs of a tile (w as the logarithm of the decay), its chunks, and its values, `n c 2 v`: unknown and v."""
    missing = (0.0, -torch.inf, 0.0, 0.0, 0.0, 0.0)
    r, w, k, v, a, b = (load(piece, chunk, x, like, x0) for x, x0 in zip(inputs, missing, strict=True))
    rate = log_decay(w)
    values = torch.stack([torch.zeros_like(v), v], 2)
    return [r, rate, k, v, a, b], ascend(r, k, a, b, rate), values


@torch.library.custom_op("mmrnn::wkv7_chunked_backward", mutates_args=())
def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    entries: Tensor,
    dout: Tensor,
    dstate: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of r, w, k, v, a, b and the first state."""
    batch, length, heads, key = r.shape
    value = v.shape[-1]
    grads = [x.new_empty(x.shape) for x in (r, w, k, v, a, b)]
    dstate = dstate.clone(memory_format=torch.contiguous_format)
    for piece in reversed(plan(batch, length, heads, max(key, value), chunk, r.device)):
        rows, _, columns = piece.place
        before = entries[piece.chunks]
        after = torch.empty_like(before)
        with exactly(r):
            inputs, chunks, values = prepare(piece, chunk, dstate, r, w, k, v, a, b)
            seen, fresh = unknowns(chunks, inputs[3])
            values[:, :, 0] = torch.baddbmm(fresh, seen, before)
            given = load(piece, chunk, dout, dstate)
            known = unknowns_back(chunks, given)
            given = torch.stack([torch.zeros_like(given), given], 2)  # n c 2 v
            carry(piece, dstate[rows, columns], known, given, chunks.reads, chunks.whole, after, backwards=True)
            found = differentiate_tile(inputs, chunks, values, given, before, after)
        for target, source in zip(grads, found, strict=True):
            write(piece, target, source)
    return *grads, dstate


def differentiate_tile(
    inputs: list[Tensor], chunks: Chunks, values: Tensor, given: Tensor, before: Tensor, after: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of r, w, k, v, a, b, from those of what is read (`given`) and of the states at the end (`after`)."""
    r, rate, k, _, _, b = inputs
    n, c, _, key = chunks.reads.shape
    values, given = values.flatten(1, 2), given.flatten(1, 2)
    dscores = given @ values.mT
    dreads, dwrites = (given @ before.mT).view(n, c, 2, key), (values @ after.mT).view(n, c, 2, key)
    dv = (chunks.scores.mT @ given).view(n, c, 2, -1)[:, :, 1] + chunks.writes[:, :, 1] @ after
    passing = chunks.whole * (before * after).sum(-1)
    flow = descend(chunks, dscores, dreads, dwrites, passing)

    own = dscores.view(n, c, 2, c, 2).diagonal(dim1=1, dim2=3)[:, 1]  # n 2 c
    of_b, of_k = own.unsqueeze(-1).unbind(1)  # n c 1
    decay = rate.exp()
    later = dreads[:, :, 1] * decay  # r reads what the others saw one position earlier
    return (
        later + of_b * b + of_k * k,
        rate * (flow + later * r),
        dwrites[:, :, 1] + of_k * r,
        dv,
        dreads[:, :, 0],
        dwrites[:, :, 0] + of_b * r,
    )


@forward.register_fake
def _(*inputs):
    r, _, _, v, _, _, state, chunk, save = inputs
    return v.new_empty(v.shape), state.new_empty(state.shape), new_entries(r, state, chunk, save)


@backward.register_fake
def _(*inputs):
    dstate = inputs[8]
    return tuple(x.new_empty(x.shape) for x in (*inputs[:6], dstate))


def remember(ctx, inputs, output) -> None:
    *tensors, _, ctx.chunk, _ = inputs
    _, state, entries = output
    ctx.save_for_backward(*tensors, entries)
    ctx.state_shape = state.shape
    ctx.set_materialize_grads(False)


def differentiate(ctx, dout: Tensor | None, dstate: Tensor | None, _):
    *inputs, entries = ctx.saved_tensors
    dout = inputs[3].new_zeros(inputs[3].shape) if dout is None else dout
    dstate = entries.new_zeros(ctx.state_shape) if dstate is None else dstate
    return *backward(*inputs, entries, dout, dstate, ctx.chunk), None, None


forward.register_autograd(differentiate, setup_context=remember)
