"""Rows of all processes in each of them, with their gradients."""

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
    from torch.distributed.nn.functional import all_gather

    rank = dist.get_rank()
    sizes = [x.new_empty(2, dtype=torch.long) for _ in range(count)]
    dist.all_gather(sizes, torch.tensor(x.shape[:2], device=x.device))
    rows, columns = torch.stack(sizes).T.tolist()
    more = (0, 0) * (x.dim() - 2) + (0, max(columns) - x.shape[1], 0, max(rows) - len(x))
    filled = F.pad(x, more).contiguous()
    if filled.requires_grad:
        parts = all_gather(filled)
    else:
        parts = [torch.empty_like(filled) for _ in range(count)]
        dist.all_gather(parts, filled)
    return torch.cat([part[:height] for part, height in zip(parts, rows, strict=True)]), sum(rows[:rank])
