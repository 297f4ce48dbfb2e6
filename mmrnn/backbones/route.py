"""Routing of positions to one of two modules."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Routing


def route(
    routing: Routing, base: nn.Module, expert: nn.Module, *inputs: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t e"]:
    """Apply `expert` to the positions of `routing` and `base` to all others; both must act on each position alone."""
    if routing.count in (0, routing.where.numel()):
        return (expert if routing.count else base)(*inputs)
    sizes = [routing.where.numel() - routing.count, routing.count]
    split = [x.flatten(0, 1)[routing.order].split(sizes) for x in inputs]
    out = torch.cat([base(*(x[None] for x, _ in split)), expert(*(y[None] for _, y in split))], dim=1)[0]
    return out[routing.inverse].view(*routing.where.shape, -1)
