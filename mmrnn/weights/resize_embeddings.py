"""Rows for words that a vocabulary gets beside those of a file."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


def extended(table: Float[Tensor, "old d"], rows: int) -> Float[Tensor, "rows d"]:
    """An embedding, or a head, with so many rows: each new one is the mean of those that are there (LLaVA's added
    tokens, arXiv 2304.08485), so that a word nobody has learnt yet is an average word.

    Raises:
        ValueError: it has more rows already.
    """
    if rows < len(table):
        raise ValueError(f"a table of {len(table)} rows cannot be extended to {rows}")
    mean = table.float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])


def with_added_words(
    module: nn.Module, tensors: Mapping[str, Tensor], added: int, notes: list[str]
) -> dict[str, Tensor]:
    """The tensors of a language model, its embedding and head extended by up to `added` rows to its vocabulary."""
    vocab = getattr(getattr(module, "backbone", module), "vocab", 0)
    target, ready = module.state_dict(), dict(tensors)
    for name, value in tensors.items():
        table = value.dim() == 2 and target[name].shape == (vocab, value.shape[1])
        if table and 0 < (new := vocab - len(value)) <= added:
            ready[name] = extended(value, vocab)
            notes.append(f"{name}: {new} rows more than the file has, each the mean of its rows")
    return ready
