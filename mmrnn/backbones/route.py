"""Routing of positions to one of two modules."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Routing


def route(
    routing: Routing,
    base: nn.Module,
    expert: nn.Module,
    *inputs: Float[Tensor, "b t d"],
    expert_inputs: tuple[Float[Tensor, "b t d"], ...] | None = None,
) -> Float[Tensor, "b t e"]:
    """Apply `expert` to the positions of `routing` and `base` to all others; both must act on each position alone.

    Args:
        routing: positions of the expert.
        base: module of all other positions.
        expert: module of those.
        inputs: of both modules.
        expert_inputs: of the expert in their place; None: the same.
    """
    theirs = inputs if expert_inputs is None else expert_inputs
    if routing.count in (0, routing.where.numel()):
        return expert(*theirs) if routing.count else base(*inputs)
    others = routing.where.numel() - routing.count
    own = [x.flatten(0, 1)[routing.order[:others]][None] for x in inputs]
    routed = [x.flatten(0, 1)[routing.order[others:]][None] for x in theirs]
    out = torch.cat([base(*own), expert(*routed)], dim=1)[0]
    return out[routing.inverse].view(*routing.where.shape, -1)
