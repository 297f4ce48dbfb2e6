"""AdamW."""

from typing import Any

import torch

from mmrnn.types import Fraction, NonNegativeFloat, Optimizer, PositiveFloat


class AdamW(torch.optim.AdamW, Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[Fraction, Fraction] = (0.9, 0.99),
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        weight_decay_final: NonNegativeFloat | None = None,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self.weight_decay, self.weight_decay_final = weight_decay, weight_decay_final
