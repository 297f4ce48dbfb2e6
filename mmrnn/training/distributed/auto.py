"""Choice of a strategy by the number of processes and the memory of their devices."""

from collections.abc import Mapping

import torch
from torch import nn

from mmrnn.config.device import KINDS, device_module
from mmrnn.training.distributed.strategies import DDP, FSDP, Auto, Single
from mmrnn.training.distributed.world import World
from mmrnn.training.stage import Stage
from mmrnn.types import Strategy

TRAINED_BYTES = 16
"""Memory of a trained parameter: fp32 weight, gradient and two moments."""

MAX_SHARE = 0.6
"""Of a GPU's memory that parameters may take; activations need the rest."""


def choose_strategy(
    strategy: Strategy, step: nn.Module | None, stages: Mapping[str, Stage], world: World, device: torch.device
) -> Strategy:
    """Return the strategy, or in place of `Auto` the one that fits; all processes choose alike.

    Args:
        strategy: that the configuration chooses.
        step: model and objective, perhaps on the meta device; None: no `auto`, or one process.
        stages: by name.
        world: the processes.
        device: of this process.
    """
    if not isinstance(strategy, Auto):
        return strategy
    if world.size == 1:
        return Single()
    if not KINDS[device.type].memory_figures:
        return DDP()
    memory = min(world.gather(device_module(device).get_device_properties(device).total_memory))
    return DDP() if bytes_needed(step, stages) <= MAX_SHARE * memory else FSDP()


def bytes_needed(step: nn.Module, stages: Mapping[str, Stage]) -> int:
    """Memory of the parameters, their gradients and their moments in the stage that needs most."""
    found = {name.removeprefix("model."): parameter for name, parameter in step.named_parameters()}

    def needed(stage: Stage) -> int:
        return sum(
            parameter.numel() * (TRAINED_BYTES if stage.trains(name) else parameter.element_size())
            for name, parameter in found.items()
        )

    return max(needed(stage) for stage in stages.values())
