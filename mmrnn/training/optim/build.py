"""The optimiser of a stage: AdamW, or Muon for the matrices between layers and AdamW for the rest."""

from typing import Any

import torch
from torch import nn

from mmrnn.training.optim.muon import Muon


class OptimizerGroup:
    """Optimisers of different parameters that step as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


Optimizer = torch.optim.Optimizer | OptimizerGroup


def hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """The weights of linear layers that lead from features to features: not the head, whose rows are words."""
    words = model.backbone.vocab
    linears = (module for module in model.modules() if isinstance(module, nn.Linear))
    return {module.weight for module in linears if module.out_features != words}


def optimizer(
    adamw: list[dict[str, Any]], muon: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float
) -> Optimizer:
    """AdamW for some groups of parameters, Muon for others.

    Muon makes all directions of a step equally long (Jordan 2024, kellerjordan.github.io/posts/muon).
    """
    parts: list[torch.optim.Optimizer] = []
    if adamw:
        parts.append(torch.optim.AdamW(adamw, lr=lr, betas=betas, eps=eps, fused=True))
    if muon:
        parts.append(Muon(muon, lr=lr))
    return parts[0] if len(parts) == 1 else OptimizerGroup(*parts)
