"""Backward pass of one tile. Equations and names are those of README.md."""

from typing import NamedTuple

import torch
from torch import Tensor

from .chunk_tile import Level, Tile, carry, fit, halves


class LevelGradient(NamedTuple):
    """Views that the backward pass adds to a level."""

    level: Level
    drk: Tensor  # 2 m b k: gradients of r P and k Q
    dlog_halves: Tensor  # 2 m k: phi of the left halves and of the right halves
    dlog_block: Tensor  # m k: phi of the whole blocks
    dout: Tensor  # m b v: of the right halves
    v: Tensor  # m b v: of the left halves
    mask: Tensor | None  # g g: the blocks on the diagonal, if several blocks share a group


class BackwardTile(Tile):
    """A tile with gradients: after `load`, `compute_scores` and `backward`, drk, dv and dw hold them."""

    def __init__(self, rows: int, heads: int, chunks: int, chunk: int, key: int, value: int, like: Tensor) -> None:
        super().__init__(rows, heads, chunks, chunk, key, value, like)
        total = rows * heads * chunks
        tokens = total * chunk
        new = like.new_empty
        self.dout, self.dv, self.drk = new(tokens, value), self.out, new(2, tokens, key)
        self.dchunk_states = self.chunk_states  # gradients of the states that the chunks end with
        self.dr_chunks, self.dk_chunks = self.drk.view(2, total, chunk, key)
        self.dv_chunks, self.dout_chunks = self.out_chunks, self.dout.view(total, chunk, value)

        self.dlog_chunks = dlog_block = new(total, key)
        self.level_gradients: list[LevelGradient] = []
        for level in reversed(self.levels):
            m, size = level.rk.shape[1:3]
            group = level.groups.shape[2]
            dlog_halves = new(2 * m, key)
            self.level_gradients.append(
                LevelGradient(
                    level=level,
                    drk=halves(self.drk, size),
                    dlog_halves=dlog_halves.view(m, 2, key).transpose(0, 1),
                    dlog_block=dlog_block,
                    dout=self.dout.view(m, 2, size, value)[:, 1],
                    v=self.v.view(m, 2, size, value)[:, 0],
                    mask=torch.block_diag(*[like.new_ones(size, size)] * (group // size)) if group > size else None,
                )
            )
            dlog_block = dlog_halves
        self.dw = dlog_block

    def saved(self, shared: Tensor) -> Tensor:
        """Return memory of its own for a tensor that the backward pass keeps."""
        return torch.empty_like(shared)

    def load(self, index: tuple[slice, slice, slice], r: Tensor, k: Tensor, v: Tensor, w: Tensor, dout: Tensor) -> None:
        """Copy the inputs of a tile and the gradient of its output into its memory."""
        super().load(index, r, k, v, w)
        self.read(index, self.dout, dout)

    def backward(self, u: Tensor, dstate: Tensor, chunk_states: Tensor) -> Tensor:
        """Fill drk, dv and dw; update `dstate` (`rows heads k v`); return du (`heads k`)."""
        torch.bmm(self.r_chunks.mT, self.dout_chunks, out=self.updates)
        decays, updates, ends = map(self.by_chunk, (self.w[-1].unsqueeze(-1), self.updates, self.dchunk_states))
        carry(dstate, decays[::-1], updates[::-1], ends[::-1])

        torch.bmm(self.a.mT, self.dout_chunks, out=self.dv_chunks)
        self.dv_chunks.baddbmm_(self.k_chunks, self.dchunk_states)
        torch.bmm(self.dout_chunks, chunk_states.mT, out=self.dr_chunks)
        torch.bmm(self.v_chunks, self.dchunk_states.mT, out=self.dk_chunks)
        torch.sum(torch.mul(chunk_states, self.dchunk_states, out=self.updates), -1, out=self.dlog_chunks)
        self.dlog_chunks.mul_(self.w[-1])
        for gradient in self.level_gradients:
            self.descend(gradient)
        self.dw.mul_(self.rate)
        return self.bonus(u)

    def descend(self, gradient: LevelGradient) -> None:
        """Go from blocks of 2b positions to their halves, equations (13) and (14)."""
        level, drk = gradient.level, gradient.drk
        drk.mul_(level.sibling_decay)
        torch.sum(torch.mul(drk, level.scaled, out=fit(self.scratch, drk.shape)), 2, out=gradient.dlog_halves)
        gradient.dlog_halves.add_(gradient.dlog_block)

        right, left = level.groups
        dout, v = (x.reshape(*right.shape[:2], -1) for x in (gradient.dout, gradient.v))
        dscores = torch.bmm(dout, v.mT, out=level.group_scores)
        if gradient.mask is not None:
            dscores.mul_(gradient.mask)
        added = fit(self.pq.view(-1), level.groups.shape)
        torch.bmm(dscores, left, out=added[0])
        torch.bmm(dscores.mT, right, out=added[1])
        drk.add_(added.view(drk.shape))

    def bonus(self, u: Tensor) -> Tensor:
        """Add the gradients through u: `dr += u k (v dout)`, `dk += u r (v dout)`; return du."""
        shared = torch.mul(self.dout, self.v, out=fit(self.scratch, self.v.shape)).sum(-1, keepdim=True)
        weighted = torch.mul(self.rk, shared, out=self.pq)
        du = torch.mul(weighted[0], self.rk[1], out=fit(self.scratch, weighted[0].shape))
        self.lanes(self.drk[0]).addcmul_(self.lanes(weighted[1]), u)
        self.lanes(self.drk[1]).addcmul_(self.lanes(weighted[0]), u)
        return self.lanes(du).sum((0, 2))
