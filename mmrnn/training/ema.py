"""Exponential moving average of the parameters that learn."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Exponential moving average of some parameters of a model, updated after every optimizer step.

    Update n (from 0) keeps min(decay, (1 + n) / (10 + n)) of the average, so that a short run forgets the weights that
    it started from. Parameters may be sharded (`DTensor`): every process averages its shards.

    Args:
        model: whose parameters are averaged.
        names: of the parameters.
        decay: share of the average that an update keeps, at most.
    """

    def __init__(self, model: nn.Module, names: Collection[str], decay: float):
        self.decay, self.updates = decay, 0
        parameters = dict(model.named_parameters())
        self.average = {name: parameters[name].detach().clone() for name in sorted(names)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the parameters of the model."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = dict(model.named_parameters())
        current = [parameters[name].detach() for name in self.average]
        get_ema_multi_avg_fn(decay)(list(self.average.values()), current, self.updates)
        self.updates += 1

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Exchange the parameters of the model with their averages, and back at the end."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    def state_dict(self) -> dict[str, Any]:
        """Return number of updates and averages, for a checkpoint."""
        return {"updates": self.updates, "average": self.average}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a `state_dict`.

        Raises:
            ValueError: it holds averages of other parameters.
        """
        if state_dict["average"].keys() != self.average.keys():
            names = sorted(state_dict["average"].keys() ^ self.average.keys())
            raise ValueError(f"ema: the checkpoint averages other parameters; it differs in {', '.join(names[:5])}")
        for name, value in state_dict["average"].items():
            self.average[name].copy_(value)
        self.updates = state_dict["updates"]

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        parameters = dict(model.named_parameters())
        for name, average in self.average.items():
            own = parameters[name].detach().clone()
            parameters[name].copy_(average)
            average.copy_(own)
