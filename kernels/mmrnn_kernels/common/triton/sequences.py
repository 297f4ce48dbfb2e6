"""Layout of the sequences of a call, and the arguments that every WKV kernel takes about them."""

import torch
from torch import Tensor

from ..segments import segment_lengths


class Sequences:
    """Sequences of a call: rows of `b t`, or segments of one packed row.

    Raises:
        ValueError: cu_seqlens does not fit the row.
    """

    def __init__(self, op: str, r: Tensor, v: Tensor, cu_seqlens: Tensor | None):
        batch, length, heads, key = r.shape
        lengths = [length] * batch if cu_seqlens is None else segment_lengths(op, cu_seqlens, batch, length)
        self.positions, self.length = batch * length, length
        self.count, self.longest = len(lengths), max(lengths)
        self.cu_seqlens = None if cu_seqlens is None else cu_seqlens.to(r.device)
        self.heads, self.key, self.value = heads, key, v.shape[-1]
        self.programs = self.count * heads
        self.constants = {"H": heads, "K": key, "V": self.value, "PACKED": cu_seqlens is not None}

    def slots(self, span: int) -> int:
        """Upper bound of the number of pieces of `span` positions in all sequences."""
        return self.positions // span + self.count

    def empty_states(self, x: Tensor, count: int | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory on the device of x for `count` states (default: one a sequence) of every head, `n h k v`."""
        return x.new_empty((count or self.count, self.heads, self.key, self.value), dtype=dtype)
