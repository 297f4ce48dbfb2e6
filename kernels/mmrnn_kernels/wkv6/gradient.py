"""The backward pass of one tile. The equations are those of README.md."""

from typing import NamedTuple

import torch
from torch import Tensor

from .tile import Level, Place, Tile, carry, fit, halves


class Slope(NamedTuple):
    """What the backward pass adds to a level."""

    level: Level
    grads: Tensor  # 2 m b k: gradients of r P and k Q
    flow: Tensor  # 2 m k: gradient of log W of the left halves and of the right halves
    above: Tensor  # m k: the same of the whole blocks
    dout: Tensor  # m b v: of the right halves
    v: Tensor  # m b v: of the left halves
    mask: Tensor | None  # g g: the blocks on the diagonal, where several blocks share a group


class Gradient(Tile):
    """A tile that goes backwards: after `load`, `combine` and `backward`, drk, dv and dw hold the gradients."""

    def __init__(self, rows: int, heads: int, chunks: int, chunk: int, key: int, value: int, like: Tensor) -> None:
        super().__init__(rows, heads, chunks, chunk, key, value, like)
        total = rows * heads * chunks
        tokens = total * chunk
        new = like.new_empty
        self.dout, self.dv, self.drk = new(tokens, value), self.out, new(2, tokens, key)
        self.exits = self.entries  # gradients of the states that the chunks end with
        self.dr_chunks, self.dk_chunks = self.drk.view(2, total, chunk, key)
        self.dv_chunks, self.dout_chunks = self.out_chunks, self.dout.view(total, chunk, value)

        self.top = above = new(total, key)
        self.slopes: list[Slope] = []
        for level in reversed(self.levels):
            m, size = level.raw.shape[1:3]
            group = level.groups.shape[2]
            flow = new(2 * m, key)
            self.slopes.append(
                Slope(
                    level=level,
                    grads=halves(self.drk, size),
                    flow=flow.view(m, 2, key).transpose(0, 1),
                    above=above,
                    dout=self.dout.view(m, 2, size, value)[:, 1],
                    v=self.v.view(m, 2, size, value)[:, 0],
                    mask=torch.block_diag(*[like.new_ones(size, size)] * (group // size)) if group > size else None,
                )
            )
            above = flow
        self.dw = above

    def keep(self, shared: Tensor) -> Tensor:
        return torch.empty_like(shared)

    def load(self, place: Place, r: Tensor, k: Tensor, v: Tensor, w: Tensor, dout: Tensor) -> None:
        super().load(place, r, k, v, w)
        self.read(place, self.dout, dout)

    def backward(self, u: Tensor, dstate: Tensor, entries: Tensor) -> Tensor:
        """Fill drk, dv and dw and answer with du (`heads k`). `dstate` (`rows heads k v`) moves back."""
        torch.bmm(self.r_chunks.mT, self.dout_chunks, out=self.updates)
        decays, updates, exits = map(self.by_chunk, (self.w[-1].unsqueeze(-1), self.updates, self.exits))
        carry(dstate, decays[::-1], updates[::-1], exits[::-1])

        torch.bmm(self.a.mT, self.dout_chunks, out=self.dv_chunks)
        self.dv_chunks.baddbmm_(self.k_chunks, self.exits)
        torch.bmm(self.dout_chunks, entries.mT, out=self.dr_chunks)
        torch.bmm(self.v_chunks, self.exits.mT, out=self.dk_chunks)
        torch.sum(torch.mul(entries, self.exits, out=self.updates), -1, out=self.top)
        self.top.mul_(self.w[-1])
        for slope in self.slopes:
            self.descend(slope)
        self.dw.mul_(self.rate)
        return self.bonus(u)

    def descend(self, slope: Slope) -> None:
        """From blocks of 2b to their halves."""
        level, grads = slope.level, slope.grads
        grads.mul_(level.sibling)
        torch.sum(torch.mul(grads, level.scaled, out=fit(self.room, grads.shape)), 2, out=slope.flow)
        slope.flow.add_(slope.above)

        right, left = level.groups
        dout, v = (x.reshape(*right.shape[:2], -1) for x in (slope.dout, slope.v))
        dscores = torch.bmm(dout, v.mT, out=level.scores)
        if slope.mask is not None:
            dscores.mul_(slope.mask)
        added = fit(self.pq.view(-1), level.groups.shape)
        torch.bmm(dscores, left, out=added[0])
        torch.bmm(dscores.mT, right, out=added[1])
        grads.add_(added.view(grads.shape))

    def bonus(self, u: Tensor) -> Tensor:
        """Add what comes by way of u: `dr += u k (v dout)`, `dk += u r (v dout)`; answer with du."""
        shared = torch.mul(self.dout, self.v, out=fit(self.room, self.v.shape)).sum(-1, keepdim=True)
        weighted = torch.mul(self.rk, shared, out=self.pq)
        du = torch.mul(weighted[0], self.rk[1], out=fit(self.room, weighted[0].shape))
        self.lanes(self.drk[0]).addcmul_(self.lanes(weighted[1]), u)
        self.lanes(self.drk[1]).addcmul_(self.lanes(weighted[0]), u)
        return self.lanes(du).sum((0, 2))
