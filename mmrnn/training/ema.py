"""Exponential moving average of the parameters that learn."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Exponential moving average of some parameters of a model, updated after every optimizer step.

    Update n (from 0) keeps min(decay, (1 + n) / (10 + n)) of the average, so that a short run forgets the weights that
    it started from. Parameters may be sharded (`DTensor`): every process averages its shards.

    Args:
        model: whose parameters are averaged.
        names: of the parameters.
        decay: share of the average that an update keeps, at most; 0: nothing is averaged, and no method does anything.

    Attributes:
        average: by name of the parameter.
        updates: number of updates.
    """

    def __init__(self, model: nn.Module, names: Collection[str], decay: float):
        self.decay, self.updates = decay, torch.zeros((), dtype=torch.long)
        parameters = dict(model.named_parameters())
        self.average = {name: parameters[name].detach().clone() for name in sorted(names if decay else ())}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the parameters of the model."""
        if not self.average:
            return
        done = int(self.updates)
        parameters = dict(model.named_parameters())
        current = [parameters[name].detach() for name in self.average]
        get_ema_multi_avg_fn(min(self.decay, (1 + done) / (10 + done)))([*self.average.values()], current, done)
        self.updates += 1

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Exchange the parameters of the model with their averages, and back at the end."""
        self.exchange(model)
        try:
            yield
        finally:
            self.exchange(model)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Give the model the averages, and keep its own parameters in their place."""
        parameters = dict(model.named_parameters())
        for name, average in self.average.items():
            own = parameters[name].detach().clone()
            parameters[name].copy_(average)
            average.copy_(own)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, by name; who writes into these tensors restores it."""
        named = {f"ema.{name}": average for name, average in self.average.items()}
        return {"ema_updates": self.updates, **named} if named else {}
