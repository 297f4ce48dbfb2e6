"""Where sequences lie in the rows, and what every kernel is told about them."""

import torch
from torch import Tensor

from ...segments import lengths


class Sequences:
    """Raises ValueError if the bounds do not fit the row."""

    def __init__(self, op: str, r: Tensor, v: Tensor, bounds: Tensor | None):
        batch, length, heads, key = r.shape
        sizes = [length] * batch if bounds is None else lengths(op, bounds, batch, length)
        self.positions, self.length = batch * length, length
        self.count, self.longest = len(sizes), max(sizes)
        self.bounds = None if bounds is None else bounds.to(r.device)
        self.heads, self.key, self.value = heads, key, v.shape[-1]
        self.programs = self.count * heads
        self.shared = {"H": heads, "K": key, "V": self.value, "PACKED": bounds is not None}

    def slots(self, span: int) -> int:
        """How many pieces of `span` positions there may be."""
        return self.positions // span + self.count

    def states(self, x: Tensor, count: int | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Room for a state of every sequence, or for `count` of every head."""
        return x.new_empty((count or self.count, self.heads, self.key, self.value), dtype=dtype)
