"""Muon, batched over matrices of one shape, and its combination with AdamW."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor

from mmrnn.config.device import multiplies_bf16
from mmrnn.training.distributed.whole_matrices import on_owners
from mmrnn.training.optim.adamw import AdamW
from mmrnn.training.optim.optimizer_group import OptimizerGroup
from mmrnn.types import Fraction, NonNegativeFloat, PositiveFloat

MAX_BATCH_ENTRIES = 2**24
"""Entries that are orthogonalised at once; bounds the memory of a step."""


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, batched over matrices of one shape.

    One by one, small matrices cost more in launches than in products (`tools/bench_muon.py`). Updates have the RMS of
    those of AdamW (Liu et al. 2025, arXiv:2502.16982, 2.2), so that one learning rate serves both. Sharded matrices
    are gathered, and each is orthogonalised by one process.

    Args:
        params: matrices, or groups of them.
        knobs: further arguments of `torch.optim.Muon`.
    """

    def __init__(self, params: Iterable[Any], **knobs: Any):
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **knobs)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update the matrices from their gradients."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                size = max(1, MAX_BATCH_ENTRIES // math.prod(shape))
                for first in range(0, len(weights), size):
                    self._update(weights[first : first + size], group)
        return loss

    def _update(self, weights: Sequence[Tensor], group: dict[str, Any]) -> None:
        def orthogonalise(matrices: Tensor) -> Tensor:
            return orthogonal(matrices, group["ns_coefficients"], group["ns_steps"], group["eps"])

        directions = [self._direction(weight, group) for weight in weights]
        if isinstance(weights[0], DTensor):
            directions = on_owners(directions, orthogonalise)
        else:
            directions = orthogonalise(torch.stack(directions))
        rate = group["lr"] * 0.2 * math.sqrt(max(weights[0].shape))
        for weight, direction in zip(weights, directions, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-rate)

    def _direction(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
        return weight.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum


def orthogonal(
    matrices: Float[Tensor, "m rows cols"], coefficients: Sequence[float], steps: int, eps: float
) -> Float[Tensor, "m rows cols"]:
    """Approximate the nearest semi-orthogonal matrices, in bf16; in fp32 on a CPU that emulates bf16.

    A Newton-Schulz iteration of fifth order, whose coefficients raise small singular values quickly and leave all of
    them between about 0.7 and 1.2 (Jordan 2024, kellerjordan.github.io/posts/muon).
    """
    linear, cubic, quintic = coefficients
    x = matrices.bfloat16() if multiplies_bf16(matrices.device) else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)  # singular values of at most one
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.mT if tall else x


class MuonWithAdamW(OptimizerGroup):
    """Muon for the matrices between layers, AdamW for the other parameters (embeddings, head, vectors).

    Muon's updates have equal singular values (Jordan 2024, kellerjordan.github.io/posts/muon).
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        *,
        momentum: Fraction = 0.95,
        betas: tuple[Fraction, Fraction] = (0.9, 0.99),
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        weight_decay_final: NonNegativeFloat | None = None,
    ) -> None:
        hidden = [group for group in groups if group["hidden"]]
        rest = [group for group in groups if not group["hidden"]]
        parts: list[torch.optim.Optimizer] = []
        if rest:
            parts.append(AdamW(rest, lr, betas=betas, eps=eps, weight_decay=weight_decay))
        if hidden:
            parts.append(Muon(hidden, lr=lr, momentum=momentum, weight_decay=weight_decay))
        super().__init__(*parts)
        self.weight_decay, self.weight_decay_final = weight_decay, weight_decay_final
