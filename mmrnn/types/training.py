"""Contracts of what changes the parameters: optimizers and learning-rate schedules."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Optimizer(Protocol):
    """Update rule. Its constructor takes parameter groups and a learning rate; the other arguments are knobs.

    Attributes:
        param_groups: besides what torch keeps in it, each group says the factor of its learning rate (`lr_mult`), true
            for weights of linear layers between features (`hidden`), and true for what weight decay applies to
            (`decays`).
        weight_decay: at the first step.
        weight_decay_final: at the last step; None: constant.
    """

    param_groups: list[dict[str, Any]]
    weight_decay: float
    weight_decay_final: float | None = None

    @abstractmethod
    def step(self) -> Any:
        """Update the parameters from their gradients."""
        ...

    @abstractmethod
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients."""
        ...

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Moments and settings, for a snapshot."""
        ...

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        ...


OptimizerFactory = Callable[[list[dict[str, Any]], float], Optimizer]
"""An optimizer card: parameter groups and learning rate to an optimizer."""


@runtime_checkable
class Schedule(Protocol):
    """Learning rate over the steps of a stage.

    Attributes:
        warmup: steps of growth before the decay.
    """

    warmup: int = 0

    @abstractmethod
    def lr_at(self, step: int, *, steps: int, lr: float) -> float:
        """Learning rate of step `step` (from 0) of `steps`, of which `lr` is the highest."""
        ...
