"""Several optimizers as one."""

from typing import Any

import torch

from mmrnn.types import Optimizer


class OptimizerGroup(Optimizer):
    """Optimizers of different parameters that step as one."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self._parts = parts

    @property
    def parts(self) -> tuple[torch.optim.Optimizer, ...]:
        """The optimizers."""
        return self._parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Update the parameters of all parts."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of all parts."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """States of the parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of the parts."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
