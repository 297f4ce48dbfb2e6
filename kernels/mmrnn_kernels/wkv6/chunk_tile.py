"""Forward pass of one tile: a few heads over a few chunks, small enough for the cache.

Equations and names (P, Q, W, A) are those of README.md.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 16
"""Rows of the smallest matrix products: smaller blocks share one, since a batched matmul of tiny matrices is slow."""


class Level(NamedTuple):
    """Views of a tile for the blocks of 2b positions: index 0 is the right half (r, P), index 1 the left (k, Q)."""

    rk: Tensor  # 2 m b k: r and k
    products: Tensor  # 2 m b k: P and Q
    scaled: Tensor  # 2 m b k: r P and k Q
    groups: Tensor  # 2 p g k: `scaled` as operands of matrix products, of g = b positions or several blocks
    sibling_decay: Tensor  # 2 m 1 k: W of the other half
    block_decay: Tensor  # m 1 k: W of both halves together, a half of the next level
    group_scores: Tensor  # p g g: products of the groups
    block_scores: Tensor  # p g/b b b: the blocks on the diagonals of `group_scores`
    chunk_scores: Tensor  # p g/b b b: their place in A


class Tile:
    """Working memory for tiles of `rows * heads` lanes and `chunks * chunk` positions; every tile overwrites it."""

    def __init__(self, rows: int, heads: int, chunks: int, chunk: int, key: int, value: int, like: Tensor) -> None:
        self.rows, self.heads, self.chunks, self.chunk = rows, heads, chunks, chunk
        total = rows * heads * chunks
        tokens = total * chunk
        new = like.new_empty

        # Products of decays below the floor count as zero: far below rounding, and the product of two above it is not
        # denormal (slow). A pre-activation above the ceiling has a decay below the floor.
        self.floor = 16 * torch.finfo(like.dtype).tiny ** 0.5
        self.ceiling = math.log(-math.log(self.floor)) + 0.25

        self.rk, self.pq = new(2, tokens, key), new(2, tokens, key)
        self.v, self.out = new(tokens, value), new(tokens, value)
        self.updates, self.chunk_states = new(total, key, value), new(total, key, value)
        self.scratch = new(tokens * max(key, value, chunk))

        # One row more than a chunk has makes the strides between the blocks of a level equal, and those of the
        # diagonal. Above the diagonal it stays zero.
        self.padded_a = like.new_zeros(total, chunk + 1, chunk)
        self.a = self.padded_a[:, :chunk]
        self.diagonal = self.padded_a.as_strided((tokens,), (chunk + 1,))

        self.decays = new(tokens * 2 - total, key)
        self.w = list(self.decays.split([tokens >> i for i in range(chunk.bit_length())]))
        shared = new(tokens, key)
        self.levels = [self.level(2**i, *halves, shared) for i, halves in enumerate(pairwise(self.w))]

        self.rate = self.saved(self.w[0])  # -exp(w), the logarithm of the decay
        self.r_chunks, self.k_chunks = self.pq.view(2, total, chunk, key)  # r P and k Q of whole chunks
        self.v_chunks, self.out_chunks = self.v.view(total, chunk, value), self.out.view(total, chunk, value)

    def level(self, size: int, w: Tensor, block_decay: Tensor, shared: Tensor) -> Level:
        """Make the views for blocks with halves of `size` positions; `w` has the decays of the halves."""
        tokens, key = self.rk.shape[1:]
        m, group = tokens // (2 * size), max(size, min(GROUP, self.chunk // 2))
        rk = halves(self.rk, size)
        scaled = self.saved(shared).view(rk.shape) if size > 1 else rk
        scores = fit(self.scratch, (tokens // (2 * group), group, group))
        blocks = scores.view(-1, group // size, size, group // size, size).diagonal(dim1=1, dim2=3)
        strides = (2 * size * (self.chunk + 1), self.chunk, 1)
        return Level(
            rk=rk,
            products=halves(self.pq, size),
            scaled=scaled,
            groups=scaled.view(2, -1, group, key),
            sibling_decay=w.view(m, 2, 1, key).transpose(0, 1),
            block_decay=block_decay.unsqueeze(1),
            group_scores=scores,
            block_scores=blocks.movedim(-1, 1),
            chunk_scores=self.padded_a.as_strided((m, size, size), strides, size * self.chunk).view(
                -1, group // size, size, size
            ),
        )

    def saved(self, shared: Tensor) -> Tensor:
        """Return the memory for a tensor that only the backward pass needs to keep; here the shared one."""
        return shared

    def lanes(self, x: Tensor) -> Tensor:
        """View the tokens of a tile as `rows heads positions c`."""
        return x.view(self.rows, self.heads, -1, x.shape[-1])

    def by_chunk(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split a tensor of all chunks into `rows heads ...` of each chunk, in the order of time."""
        return x.view(self.rows, self.heads, self.chunks, *x.shape[1:]).unbind(2)

    def read(self, index: tuple[slice, slice, slice], target: Tensor, source: Tensor, missing: float = 0.0) -> None:
        """Copy a part of `b t h c` into lanes; positions beyond its end get `missing`."""
        lanes, source = self.lanes(target), source[index].transpose(1, 2)
        length = source.shape[2]
        if length < lanes.shape[2]:
            lanes[:, :, length:] = missing
        lanes[:, :, :length].copy_(source)

    def write(self, index: tuple[slice, slice, slice], target: Tensor, source: Tensor) -> None:
        """Copy lanes into a part of `b t h c`."""
        target = target[index]
        target.copy_(self.lanes(source)[:, :, : target.shape[1]].transpose(1, 2))

    def load(self, index: tuple[slice, slice, slice], r: Tensor, k: Tensor, v: Tensor, w: Tensor) -> None:
        """Copy the inputs of a tile into its memory."""
        self.read(index, self.rk[0], r)
        self.read(index, self.rk[1], k)
        self.read(index, self.v, v)
        self.read(index, self.rate, w, -math.inf)

    def compute_scores(self, u: Tensor) -> None:
        """Fill A, and r P, k Q and W of the chunks, level by level. `u` is `heads 1 k`."""
        self.rate.clamp_(max=self.ceiling).exp_().neg_()
        if self.rate is not self.w[0]:
            self.w[0].copy_(self.rate)
        # Logarithms of one sign are added and every W is one exponential, so rounding does not grow along a chunk.
        for level in self.levels:
            torch.add(*level.sibling_decay, out=level.block_decay)
        # exp is many times slower where its result underflows.
        torch.threshold_(self.decays.clamp_(min=-math.exp(self.ceiling)).exp_(), self.floor, 0.0)

        bonus = torch.mul(self.rk[0], self.rk[1], out=fit(self.scratch, self.rk[0].shape))
        self.lanes(bonus).mul_(u)
        torch.sum(bonus, -1, out=self.diagonal)

        self.pq.fill_(1.0)
        for level in self.levels:
            if level.scaled is not level.rk:
                torch.mul(level.rk, level.products, out=level.scaled)
            right, left = level.groups
            torch.bmm(right, left.mT, out=level.group_scores)
            level.chunk_scores.copy_(level.block_scores)
            torch.threshold_(level.products.mul_(level.sibling_decay), self.floor, 0.0)
        self.pq.mul_(self.rk)

    def forward(self, state: Tensor, chunk_states: Tensor) -> None:
        """Fill `out`; update `state` (`rows heads k v`); fill the states that the chunks start from."""
        torch.bmm(self.k_chunks.mT, self.v_chunks, out=self.updates)
        carry(state, *map(self.by_chunk, (self.w[-1].unsqueeze(-1), self.updates, chunk_states)))
        torch.bmm(self.a, self.v_chunks, out=self.out_chunks)
        self.out_chunks.baddbmm_(self.r_chunks, chunk_states)


def fit(scratch: Tensor, shape: Sequence[int]) -> Tensor:
    """View the beginning of a flat tensor in a shape."""
    return scratch[: math.prod(shape)].view(shape)


def halves(x: Tensor, size: int) -> Tensor:
    """View the right halves of x[0] and the left halves of x[1] in blocks of 2 size positions: `2 n c` to `2 m b c`."""
    tokens, width = x.shape[1:]
    skip = size * width
    return x.as_strided((2, tokens // (2 * size), size, width), (tokens * width - skip, 2 * skip, width, 1), skip)


def carry(state: Tensor, decays: Sequence[Tensor], updates: Sequence[Tensor], chunk_states: Sequence[Tensor]) -> None:
    """Compute state <- decay state + update chunk by chunk; `chunk_states` gets the state before each chunk."""
    chunk_states[0].copy_(state)
    for decay, update, before, after in zip(decays, updates, chunk_states, (*chunk_states[1:], state), strict=True):
        torch.addcmul(update, before, decay, out=after)
