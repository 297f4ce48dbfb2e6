"""Routing of positions to one of two modules."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def route(
    where: Bool[Tensor, "b t"], base: nn.Module, expert: nn.Module, *inputs: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t e"]:
    """Apply `expert` to the positions in `where` and `base` to all others; both must act on each position alone."""
    routed = where.flatten()
    split = [(x.flatten(0, 1)[~routed][None], x.flatten(0, 1)[routed][None]) for x in inputs]
    out = torch.cat([base(*(x for x, _ in split)), expert(*(y for _, y in split))], dim=1)[0]
    # `out` has the positions of `base` first, then those of `expert`, each in order: invert that permutation.
    return out[routed.long().argsort(stable=True).argsort()].view(*where.shape, -1)
