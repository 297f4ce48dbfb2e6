"""Everything inside the chunks of a tile, forward and backward, for all chunks at once.

Equations and names (P, Q, W, A) are those of README.md. `n` counts chunks, `c` the positions of one. Every position has
two reads, a and r, and two writes, b and k, next to each other: `n c 2 k`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 8
"""Positions of the smallest matrix products: smaller blocks share one, since many tiny products are slow."""


class Level(NamedTuple):
    """Factors of the pairs in blocks of 2m positions: the right half reads what the left half wrote."""

    reads: Tensor  # p 2g k: of the right halves, times P
    writes: Tensor  # p 2g k: of the left halves, times Q
    left_decay: Tensor  # n c/2m 1 k: W of the left halves
    right_decay: Tensor  # n c/2m 1 k: W of the right halves


class Chunks(NamedTuple):
    """Factors of the products between the chunks and the states that pass from chunk to chunk."""

    scores: Tensor  # n 2c 2c: A
    reads: Tensor  # n c 2 k: times P of the whole chunk
    writes: Tensor  # n c 2 k: times Q of the whole chunk
    decay: Tensor  # n k: W of the whole chunk
    levels: list[Level]


def ascend(r: Tensor, k: Tensor, a: Tensor, b: Tensor, log_decay: Tensor) -> Chunks:
    """Compute the chunks level by level, from single positions (`n c k`) to the chunk."""
    n, c, key = r.shape
    reads, writes = torch.stack([a, r * log_decay.exp()], 2), torch.stack([b, k], 2)  # n c 2 k
    scores = r.new_zeros(n, 2 * c, 2 * c)
    # r reads what its own position has written.
    own = scores.view(n, c, 2, c, 2).diagonal(dim1=1, dim2=3)  # n 2 2 c
    own[:, 1] = torch.stack([(r * b).sum(-1), (r * k).sum(-1)], 1)

    levels, log_blocks, size = [], log_decay, 1
    while size < c:
        left, right = halves(log_blocks, 1).exp().unbind(2)  # n c/2m 1 k
        group_size = min(max(size, GROUP), c // 2)
        right_reads, left_writes = halves(reads, size)[:, :, 1], halves(writes, size)[:, :, 0]  # n c/2m m 2 k
        copies = (
            x.clone(memory_format=torch.contiguous_format).view(-1, 2 * group_size, key)
            for x in (right_reads, left_writes)
        )
        level = Level(*copies, left, right)
        blocks(scores, size).copy_(ungroup(level.reads @ level.writes.mT, n, size))
        right_reads *= left.unsqueeze(3)
        left_writes *= right.unsqueeze(3)
        levels.append(level)
        log_blocks, size = halves(log_blocks, 1).sum(2).squeeze(2), 2 * size
    return Chunks(scores, reads, writes, log_blocks.exp().squeeze(1), levels)


def descend(chunks: Chunks, dscores: Tensor, dreads: Tensor, dwrites: Tensor, dlog_chunk: Tensor) -> Tensor:
    """Go from the chunk back to single positions and return the gradient of `log_decay`.

    `dreads` and `dwrites` are the gradients of the reads times P and of the writes times Q, and become in place those
    of the bare ones. `dlog_chunk` (`n k`) sums the pairs around the whole chunk.
    """
    n, c, _, key = dreads.shape
    dlog, size = dlog_chunk.unsqueeze(1), c // 2  # n c/2m k
    for level in reversed(chunks.levels):
        right_reads, left_writes = halves(dreads, size)[:, :, 1], halves(dwrites, size)[:, :, 0]  # n c/2m m 2 k
        right_reads *= level.left_decay.unsqueeze(3)
        left_writes *= level.right_decay.unsqueeze(3)
        around = [
            (right_reads * level.reads.view(right_reads.shape)).sum((2, 3)),
            (left_writes * level.writes.view(left_writes.shape)).sum((2, 3)),
        ]
        dlog = (torch.stack(around, 2) + dlog.unsqueeze(2)).view(n, -1, key)
        dblocks = group(blocks(dscores, size), level.reads.shape[1])
        right_reads += (dblocks @ level.writes).view(right_reads.shape)
        left_writes += (dblocks.mT @ level.reads).view(left_writes.shape)
        size //= 2
    return dlog


def halves(x: Tensor, size: int) -> Tensor:
    """Split blocks of 2m positions in the middle: `n c ...` to `n c/2m 2 m ...`."""
    return x.view(x.shape[0], -1, 2, size, *x.shape[2:])


def blocks(scores: Tensor, size: int) -> Tensor:
    """View the scores between the halves of every block of 2m positions: `n 2c 2c` to `n 2m 2m c/2m`."""
    n, rows, _ = scores.shape
    count = rows // (4 * size)
    split = scores.view(n, count, 2, 2 * size, count, 2, 2 * size)
    return split[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3)


def ungroup(products: Tensor, n: int, size: int) -> Tensor:
    """Take the blocks on the diagonal of each product: `p 2g 2g` to `n 2m 2m c/2m`."""
    p, rows, _ = products.shape
    side, count = 2 * size, rows // (2 * size)
    diagonal = products.view(p, count, side, count, side).diagonal(dim1=1, dim2=3)  # p 2m 2m g/m
    return diagonal.reshape(n, p // n, side, side, count).permute(0, 2, 3, 1, 4).reshape(n, side, side, -1)


def group(scores: Tensor, rows: int) -> Tensor:
    """Inverse of `ungroup`, with zeros beside the diagonal."""
    n, side, _, total = scores.shape
    count = rows // side
    products = scores.new_zeros(n * total // count, rows, rows)
    diagonal = products.view(n, total // count, count, side, count, side).diagonal(dim1=2, dim2=4)  # n p/n 2m 2m g/m
    diagonal.copy_(scores.reshape(n, side, side, -1, count).permute(0, 3, 1, 2, 4))
    return products
