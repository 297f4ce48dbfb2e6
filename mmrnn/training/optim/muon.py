"""Muon for many small matrices."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn_kernels.common.cpu_features import multiplies_bf16

AT_ONCE = 2**24
"""Entries that are made orthogonal at once, which bounds the memory that this takes."""


class Muon(torch.optim.Muon):
    """The steps of `torch.optim.Muon`, those of matrices of one shape at once.

    One by one small matrices cost launches more than products (`benchmarks/muon.py`). Steps are as long as those of
    AdamW (Liu et al. 2025, arXiv:2502.16982, 2.2), so that one learning rate serves both.

    Args:
        knobs: the other ones of `torch.optim.Muon`.
    """

    def __init__(self, params: Iterable[Any], **knobs: Any):
        super().__init__(params, adjust_lr_fn="match_rms_adamw", **knobs)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                some = max(1, AT_ONCE // math.prod(shape))
                for first in range(0, len(weights), some):
                    self._move(weights[first : first + some], group)
        return loss

    def _move(self, weights: Sequence[Tensor], group: dict[str, Any]) -> None:
        updates = torch.stack([self._update(weight, group) for weight in weights])
        directions = orthogonal(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * math.sqrt(max(weights[0].shape))
        for weight, direction in zip(weights, directions, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-rate)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
        return weight.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum


def orthogonal(
    matrices: Float[Tensor, "m rows cols"], coefficients: Sequence[float], steps: int, eps: float
) -> Float[Tensor, "m rows cols"]:
    """About the nearest matrices all of whose singular values are one, in bf16; in fp32 on a CPU that emulates bf16.

    A Newton-Schulz iteration of fifth order, whose coefficients raise small singular values quickly and leave all of
    them between 0.7 and 1.2 or so (Jordan 2024, kellerjordan.github.io/posts/muon).
    """
    linear, cubic, quintic = coefficients
    x = matrices.bfloat16() if matrices.device.type != "cpu" or multiplies_bf16() else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)  # singular values of at most one
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.mT if tall else x
