"""Precision of the forward pass."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from mmrnn.config.device import multiplies_bf16
from mmrnn.config.error import ConfigError
from mmrnn.config.settings import Precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(precision: Precision, device: torch.device | str) -> Precision:
    """Return `fp32`, `bf16` or `fp16`; `auto` is bf16 where the device multiplies it natively, else fp32.

    Raises:
        ConfigError: the device has no such precision; torch's autocast would only warn, and compute in fp32.
    """
    kind = torch.device(device).type
    if precision == "auto":
        return "bf16" if multiplies_bf16(kind) else "fp32"
    if precision == "bf16" and kind != "cpu" and not multiplies_bf16(kind):
        raise ConfigError(f"precision=bf16: device={kind} has no bf16 here; set precision=fp16 or precision=fp32")
    return precision


def autocast(precision: Precision, device: torch.device | str) -> AbstractContextManager:
    """Context of a forward pass; parameters stay fp32."""
    dtype = DTYPES.get(resolve(precision, device))
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)


class LossScale:
    """Factor of the loss that keeps small gradients in the range of fp16 (Micikevicius et al. 2018, arXiv:1710.03740).

    It doubles after `GROWTH_INTERVAL` good steps and halves at each that overflows. All processes decide alike, by the
    norm of the whole gradient, which torch's GradScaler cannot: it looks at the slices of one process.

    Attributes:
        factor: of the loss; 1 in precisions that need none.
        good_steps: since it last changed.
    """

    GROWTH_INTERVAL = 2000

    def __init__(self, precision: Precision = "fp32") -> None:
        self.factor, self.good_steps = (2.0**16, 0) if precision == "fp16" else (1.0, 0)
        self.active = precision == "fp16"

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the factor."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.active and gradients:
            torch._foreach_mul_(gradients, 1 / self.factor)

    def update(self, finite: bool) -> bool:
        """Adapt the factor to a step whose gradient was finite or not.

        Returns:
            True where the factor was too large: the step is tried again with the next samples, and is no fault.
        """
        if not self.active:
            return False
        if not finite:
            self.factor, self.good_steps = self.factor / 2, 0
            return self.factor >= 1
        self.good_steps += 1
        if self.good_steps == self.GROWTH_INTERVAL:
            self.factor, self.good_steps = self.factor * 2, 0
        return False

    def state_dict(self) -> dict[str, float]:
        """Return factor and count, for a checkpoint."""
        return {"factor": self.factor, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore a `state_dict`."""
        if self.active:
            self.factor, self.good_steps = state["factor"], int(state["good_steps"])
