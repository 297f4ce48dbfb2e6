"""The forward pass of one tile: a few heads over a few chunks, small enough for the cache.

The maths and its names (P, Q, W, A) are those of README.md.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 16
"""Smaller blocks share matrix products of this size: a batched matmul of tiny matrices is slow."""

Place = tuple[slice, slice, slice]
"""Rows, positions and heads of a tile."""


class Level(NamedTuple):
    """What meets in blocks of 2b positions: the right half (first: r, P) looks back at the left (second: k, Q)."""

    raw: Tensor  # 2 m b k: r and k
    products: Tensor  # 2 m b k: P and Q
    scaled: Tensor  # 2 m b k: r P and k Q
    groups: Tensor  # 2 p g k: the same as matrix products take them, g = b or several blocks
    sibling: Tensor  # 2 m 1 k: W of the other half
    whole: Tensor  # m 1 k: W of both halves together, a half of the next level
    scores: Tensor  # p g g: their product
    blocks: Tensor  # p g/b b b: what counts of it, the blocks on the diagonals
    part: Tensor  # p g/b b b: its place in A


class Tile:
    """Working memory for tiles of `rows * heads` lanes and `chunks * chunk` positions, written over by each."""

    def __init__(self, rows: int, heads: int, chunks: int, chunk: int, key: int, value: int, like: Tensor) -> None:
        self.rows, self.heads, self.chunks = rows, heads, chunks
        total = rows * heads * chunks
        tokens = total * chunk
        new = like.new_empty

        # Products of decays below the floor count as zero: far below rounding, and the product of two that remain is
        # no denormal number (slow). A pre-activation above the ceiling has a decay below the floor.
        self.floor = 16 * torch.finfo(like.dtype).tiny ** 0.5
        self.ceiling = math.log(-math.log(self.floor)) + 0.25

        self.rk, self.pq = new(2, tokens, key), new(2, tokens, key)
        self.v, self.out = new(tokens, value), new(tokens, value)
        self.updates, self.entries = new(total, key, value), new(total, key, value)
        self.room = new(tokens * max(key, value, chunk))

        # One row more than a chunk has spaces the blocks of every level evenly, and the diagonal too.
        # Above the diagonal it stays zero.
        a = like.new_zeros(total, chunk + 1, chunk)
        self.a = a[:, :chunk]
        self.diagonal = a.as_strided((tokens,), (chunk + 1,))

        self.decays = new(tokens * 2 - total, key)
        self.w = list(self.decays.split([tokens >> i for i in range(chunk.bit_length())]))
        self.levels: list[Level] = []
        shared = new(tokens, key)
        for i, (w, whole) in enumerate(pairwise(self.w)):
            size = 2**i
            m, group = tokens // (2 * size), max(size, min(GROUP, chunk // 2))
            raw = halves(self.rk, size)
            scaled = self.keep(shared).view(raw.shape) if size > 1 else raw
            scores = fit(self.room, (tokens // (2 * group), group, group))
            blocks = scores.view(-1, group // size, size, group // size, size).diagonal(dim1=1, dim2=3)
            part = a.as_strided((m, size, size), (2 * size * (chunk + 1), chunk, 1), size * chunk)
            self.levels.append(
                Level(
                    raw=raw,
                    products=halves(self.pq, size),
                    scaled=scaled,
                    groups=scaled.view(2, -1, group, key),
                    sibling=w.view(m, 2, 1, key).transpose(0, 1),
                    whole=whole.unsqueeze(1),
                    scores=scores,
                    blocks=blocks.movedim(-1, 1),
                    part=part.view(-1, group // size, size, size),
                )
            )

        self.rate = self.keep(self.w[0])  # -exp(w), the logarithm of the decay
        self.r_chunks, self.k_chunks = self.pq.view(2, total, chunk, key)  # r P and k Q of whole chunks
        self.v_chunks, self.out_chunks = self.v.view(total, chunk, value), self.out.view(total, chunk, value)

    def keep(self, shared: Tensor) -> Tensor:
        """Where to put what only the backward pass needs for longer."""
        return shared

    def lanes(self, x: Tensor) -> Tensor:
        return x.view(self.rows, self.heads, -1, x.shape[-1])  # rows heads positions c

    def by_chunk(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.view(self.rows, self.heads, self.chunks, *x.shape[1:]).unbind(2)

    def read(self, place: Place, target: Tensor, source: Tensor, missing: float = 0.0) -> None:
        """Copy a piece of `b t h c` into lanes; positions that it lacks at the end get `missing`."""
        lanes, source = self.lanes(target), source[place].transpose(1, 2)
        length = source.shape[2]
        if length < lanes.shape[2]:
            lanes[:, :, length:] = missing
        lanes[:, :, :length].copy_(source)

    def write(self, place: Place, target: Tensor, source: Tensor) -> None:
        """Copy lanes back into a piece of `b t h c`."""
        target = target[place]
        target.copy_(self.lanes(source)[:, :, : target.shape[1]].transpose(1, 2))

    def load(self, place: Place, r: Tensor, k: Tensor, v: Tensor, w: Tensor) -> None:
        self.read(place, self.rk[0], r)
        self.read(place, self.rk[1], k)
        self.read(place, self.v, v)
        self.read(place, self.rate, w, -math.inf)

    def combine(self, u: Tensor) -> None:
        """Scores A inside the chunks, r P, k Q and W of the chunks, level by level. `u` is `heads 1 k`."""
        self.rate.clamp_(max=self.ceiling).exp_().neg_()
        if self.rate is not self.w[0]:
            self.w[0].copy_(self.rate)
        # Logarithms are added, all of one sign, and every W is one exponential: no rounding piles up along a chunk.
        for level in self.levels:
            torch.add(*level.sibling, out=level.whole)
        # exp is many times slower where its result underflows.
        torch.threshold_(self.decays.clamp_(min=-math.exp(self.ceiling)).exp_(), self.floor, 0.0)

        bonus = torch.mul(self.rk[0], self.rk[1], out=fit(self.room, self.rk[0].shape))
        self.lanes(bonus).mul_(u)
        torch.sum(bonus, -1, out=self.diagonal)

        self.pq.fill_(1.0)
        for level in self.levels:
            if level.scaled is not level.raw:
                torch.mul(level.raw, level.products, out=level.scaled)
            right, left = level.groups
            torch.bmm(right, left.mT, out=level.scores)
            level.part.copy_(level.blocks)
            torch.threshold_(level.products.mul_(level.sibling), self.floor, 0.0)
        self.pq.mul_(self.rk)

    def forward(self, state: Tensor, entries: Tensor) -> None:
        """Fill `out`. `state` (`rows heads k v`) moves on; `entries` gets the states that the chunks start from."""
        torch.bmm(self.k_chunks.mT, self.v_chunks, out=self.updates)
        carry(state, *map(self.by_chunk, (self.w[-1].unsqueeze(-1), self.updates, entries)))
        torch.bmm(self.a, self.v_chunks, out=self.out_chunks)
        self.out_chunks.baddbmm_(self.r_chunks, entries)


def fit(room: Tensor, shape: Sequence[int]) -> Tensor:
    """The beginning of `room` in that shape."""
    return room[: math.prod(shape)].view(shape)


def halves(x: Tensor, size: int) -> Tensor:
    """The right halves of x[0] and the left halves of x[1] in blocks of 2 size positions: `2 n c` to `2 m b c`."""
    tokens, width = x.shape[1:]
    skip = size * width
    return x.as_strided((2, tokens // (2 * size), size, width), (tokens * width - skip, 2 * skip, width, 1), skip)


def carry(state: Tensor, decays: Sequence[Tensor], updates: Sequence[Tensor], entries: Sequence[Tensor]) -> None:
    """State <- decay state + update, chunk by chunk; `entries` gets the state before each."""
    entries[0].copy_(state)
    for decay, update, before, after in zip(decays, updates, entries, (*entries[1:], state), strict=True):
        torch.addcmul(update, before, decay, out=after)
