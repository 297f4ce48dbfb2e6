"""Contracts of optimizers, learning-rate schedules, stages, data-parallel strategies and trackers."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Optimizer(Protocol):
    """Update rule. Its constructor takes parameter groups and a learning rate; the other arguments are knobs.

    Attributes:
        param_groups: those of torch, each also with the factor of its learning rate (`lr_mult`), `hidden` (weights of
            linear layers between features) and `decays` (weight decay applies).
        weight_decay: at the first step.
        weight_decay_final: at the last step; None: constant.
    """

    param_groups: list[dict[str, Any]]
    weight_decay: float
    weight_decay_final: float | None = None

    @property
    def parts(self) -> tuple[Any, ...]:
        """The `torch.optim.Optimizer`s that it is made of; by default itself alone."""
        return (self,)

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
        """Return moments and settings, for a checkpoint."""
        ...

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        ...


@runtime_checkable
class TrainingStage(Protocol):
    """Stage of a run: what is trained, for how many steps, at which learning rate.

    Attributes:
        train: parts, or globs of names of parameters.
        freeze: globs of parameters that stay frozen nevertheless.
        steps: optimizer steps.
    """

    train: tuple[str, ...]
    freeze: tuple[str, ...]
    steps: int


OptimizerFactory = Callable[[list[dict[str, Any]], float], Optimizer]
"""An optimizer card: parameter groups and learning rate to an optimizer."""


@runtime_checkable
class Schedule(Protocol):
    """Learning rate over the steps of a stage.

    Attributes:
        warmup: steps in which the rate grows.
    """

    warmup: int = 0

    @abstractmethod
    def lr_at(self, step: int, *, steps: int, lr: float) -> float:
        """Return the learning rate of step `step` (counted from 0) of `steps`, at most `lr`."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """Distribution of the training step over processes.

    Attributes:
        shards: each process holds a slice of every parameter only.
        replicates: gradients are averaged over several processes.
        needs_processes: it has no meaning for one process.
    """

    shards: bool = False
    replicates: bool = True
    needs_processes: bool = True

    def shard(self, step: nn.Module, precision: str) -> None:
        """Replace the parameters of the step by slices, in place; by default nothing is sliced.

        Args:
            step: model and objective (`TrainStep`), perhaps on the meta device.
            precision: of the forward pass: `fp32`, `bf16`, `fp16`.
        """

    def wrap(self, step: nn.Module) -> nn.Module:
        """Return the module that is called for a step, after the stage has set what is trained."""
        return step

    def sync(self, module: nn.Module, last: bool) -> AbstractContextManager:
        """Return the context of a micro-batch: gradients are averaged with the `last` one of a step only.

        Args:
            module: what `wrap` returned.
        """
        return nullcontext()


@runtime_checkable
class Tracker(Protocol):
    """Shows the records of a run in a tracking service. It is called by one thread, and may wait and fail.

    Attributes:
        rewinds: where a resumed run repeats steps, their new records replace the old ones; otherwise the service gets
            the record of each step once.
    """

    rewinds: bool = False

    @abstractmethod
    def start(self, folder: Path, config: Mapping[str, Any], *, id: str, step: int) -> None:
        """Begin a run, or resume it.

        Args:
            folder: of the run.
            config: of the run.
            id: of the run, the same in every process that resumes it.
            step: steps that are done.
        """
        ...

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values of a step."""
        ...

    @abstractmethod
    def finish(self) -> None:
        """Write what is still to be written, and end."""
        ...
