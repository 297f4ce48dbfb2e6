"""Rows of all processes in each of them, with their gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


def processes() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(x: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all processes in their order, and the number of the first one of ours.

    Gradients go back to the process that a row came from, so that the mean over the processes is the gradient of one
    process with all rows. Rows of fewer columns (texts) are filled up with zeros.
    """
    count = processes()
    if count == 1:
        return x, 0
    sizes = [x.new_empty(2, dtype=torch.long) for _ in range(count)]
    dist.all_gather(sizes, torch.tensor(x.shape[:2], device=x.device))
    rows, columns = torch.stack(sizes).T.tolist()
    more = (0, 0) * (x.dim() - 2) + (0, max(columns) - x.shape[1], 0, max(rows) - len(x))
    parts = _Gather.apply(F.pad(x, more).contiguous())
    return torch.cat([part[:height] for part, height in zip(parts, rows, strict=True)]), sum(rows[: dist.get_rank()])


class _Gather(torch.autograd.Function):
    """Tensors of one shape from all processes, stacked (`torch.distributed.nn.functional` is deprecated)."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(processes())]
        dist.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]
