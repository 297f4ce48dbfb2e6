"""Embeddings with more rows than a checkpoint has."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Backbone, fulfils
from mmrnn.weights.format import inner_parts


def extend_with_mean(table: Float[Tensor, "old d"], rows: int) -> Float[Tensor, "rows d"]:
    """Extend an embedding or a head to `rows` rows: new rows are initialised to the mean embedding.

    This is what LLaVA (arXiv 2304.08485) does for added tokens.

    Raises:
        ValueError: the table has more rows already.
    """
    if rows < len(table):
        raise ValueError(f"a table of {len(table)} rows cannot be extended to {rows}; ask for at least as many")
    mean = table.float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])


def resize_embeddings(
    module: nn.Module, tensors: Mapping[str, Tensor], max_new_rows: int, notes: list[str]
) -> dict[str, Tensor]:
    """Extend embedding and head of every backbone in `module` by up to `max_new_rows` rows to its vocabulary."""
    target, resized = module.state_dict(), dict(tensors)
    for prefix, part in _parts(module).items():
        if not fulfils(type(part), Backbone):
            continue
        for name, value in tensors.items():
            is_table = value.dim() == 2 and target[name].shape == (part.vocab, value.shape[1])
            if is_table and name.startswith(prefix) and 0 < (new := part.vocab - len(value)) <= max_new_rows:
                resized[name] = extend_with_mean(value, part.vocab)
                notes.append(f"{name}: {new} rows more than the file has, each the mean of its rows")
    return resized


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """The module and its inner parts, by the prefix of their names."""
    return {"": module} | {f"{path}.": part for path, part in inner_parts(module).items()}
