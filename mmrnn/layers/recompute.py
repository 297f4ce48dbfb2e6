"""Gradient checkpointing: blocks that are recomputed in the backward pass."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run_block(block: nn.Module, index: int, every: int, *inputs: Any) -> Any:
    """Run a block; keep only its inputs for the backward pass, and compute it again there, where `every` says so.

    Random numbers (dropout) are the same both times.

    Args:
        index: of the block, from 0.
        every: recompute the blocks 0, n, 2n, ...; 1: all of them, 0: none.
    """
    if every and index % every == 0 and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
