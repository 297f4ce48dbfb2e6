"""All chunks of a tile at once: what happens inside of them, forwards and backwards.

The maths and its names (P, Q, W, A) are those of README.md. `n` counts chunks, `c` the positions of one. Every position
has two reads, a and r, and two writes, b and k, next to each other: `n c 2 k`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 8
"""Positions of smaller blocks share matrix products: a batched matmul of tiny matrices is slow."""


class Level(NamedTuple):
    """What meets in blocks of 2m positions: the right half looks back at the left one."""

    reads: Tensor  # p 2g k: of the right halves, times P
    writes: Tensor  # p 2g k: of the left halves, times Q
    left: Tensor  # n c/2m 1 k: W of the left halves
    right: Tensor  # n c/2m 1 k: W of the right halves


class Chunks(NamedTuple):
    """What the states that go from chunk to chunk have to know of their insides."""

    scores: Tensor  # n 2c 2c: A
    reads: Tensor  # n c 2 k: times P of the whole chunk
    writes: Tensor  # n c 2 k: times Q of the whole chunk
    whole: Tensor  # n k: W of the whole chunk
    levels: list[Level]


def ascend(r: Tensor, k: Tensor, a: Tensor, b: Tensor, rate: Tensor) -> Chunks:
    """Level by level, from single positions to the chunk. `rate` is the logarithm of the decay."""
    n, c, key = r.shape
    decay = rate.exp()
    reads, writes = torch.stack([a, r * decay], 2), torch.stack([b, k], 2)  # n c 2 k
    scores = r.new_zeros(n, 2 * c, 2 * c)
    # A position reads what it has just written.
    own = scores.view(n, c, 2, c, 2).diagonal(dim1=1, dim2=3)  # n 2 2 c
    own[:, 1] = torch.stack([(r * b).sum(-1), (r * k).sum(-1)], 1)

    levels, total, size = [], rate, 1
    while size < c:
        left, right = halves(total, 1).exp().unbind(2)  # n c/2m 1 k
        together = min(max(size, GROUP), c // 2)
        seen, met = halves(reads, size)[:, :, 1], halves(writes, size)[:, :, 0]  # n c/2m m 2 k
        kept = (x.clone(memory_format=torch.contiguous_format).view(-1, 2 * together, key) for x in (seen, met))
        level = Level(*kept, left, right)
        blocks(scores, size).copy_(ungroup(level.reads @ level.writes.mT, n, size))
        seen *= left.unsqueeze(3)
        met *= right.unsqueeze(3)
        levels.append(level)
        total, size = halves(total, 1).sum(2).squeeze(2), 2 * size
    return Chunks(scores, reads, writes, total.exp().squeeze(1), levels)


def descend(chunks: Chunks, dscores: Tensor, dreads: Tensor, dwrites: Tensor, dlog: Tensor) -> Tensor:
    """From the chunk back to single positions.

    `dreads` and `dwrites` come in as the gradients of the reads times P and of the writes times Q, and are those of the
    bare ones in the end. `dlog` (`n k`) is what passes over the chunk; the answer is the gradient of `rate`.
    """
    n, c, _, key = dreads.shape
    flow, size = dlog.unsqueeze(1), c // 2  # n c/2m k
    for level in reversed(chunks.levels):
        seen, met = halves(dreads, size)[:, :, 1], halves(dwrites, size)[:, :, 0]  # n c/2m m 2 k
        seen *= level.left.unsqueeze(3)
        met *= level.right.unsqueeze(3)
        passing = [(seen * level.reads.view(seen.shape)).sum((2, 3)), (met * level.writes.view(met.shape)).sum((2, 3))]
        flow = (torch.stack(passing, 2) + flow.unsqueeze(2)).view(n, -1, key)
        own = group(blocks(dscores, size), level.reads.shape[1])
        seen += (own @ level.writes).view(seen.shape)
        met += (own.mT @ level.reads).view(met.shape)
        size //= 2
    return flow


def halves(x: Tensor, size: int) -> Tensor:
    """Blocks of 2m positions, cut in the middle: `n c ...` to `n c/2m 2 m ...`."""
    return x.view(x.shape[0], -1, 2, size, *x.shape[2:])


def blocks(scores: Tensor, size: int) -> Tensor:
    """Of every block of 2m positions, what its right half reads of its left one: `n 2c 2c` to `n 2m 2m c/2m`."""
    n, rows, _ = scores.shape
    count = rows // (4 * size)
    cut = scores.view(n, count, 2, 2 * size, count, 2, 2 * size)
    return cut[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3)


def ungroup(products: Tensor, n: int, size: int) -> Tensor:
    """The blocks on the diagonal of each product: `p 2g 2g` to `n 2m 2m c/2m`."""
    p, rows, _ = products.shape
    side, count = 2 * size, rows // (2 * size)
    found = products.view(p, count, side, count, side).diagonal(dim1=1, dim2=3)  # p 2m 2m g/m
    return found.reshape(n, p // n, side, side, count).permute(0, 2, 3, 1, 4).reshape(n, side, side, -1)


def group(found: Tensor, rows: int) -> Tensor:
    """The inverse of `ungroup`, with zeros beside the diagonal."""
    n, side, _, total = found.shape
    count = rows // side
    products = found.new_zeros(n * total // count, rows, rows)
    place = products.view(n, total // count, count, side, count, side).diagonal(dim1=2, dim2=4)  # n p/n 2m 2m g/m
    place.copy_(found.reshape(n, side, side, -1, count).permute(0, 3, 1, 2, 4))
    return products
