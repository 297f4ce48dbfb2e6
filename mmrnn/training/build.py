"""Parts of a training run, built from its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, instantiate, positional_names
from mmrnn.config.validate import RUN, check
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM
from mmrnn.training.stage import Stage
from mmrnn.types import MapDataset, Objective, OptimizerFactory, Prompt, Schedule, Tokenizer


@dataclass(frozen=True)
class TrainingParts:
    """Everything that a training run works with.

    Attributes:
        optimizer: of the stages that have none of their own.
        schedule: of the stages that have none of their own.
        device: of the model.
    """

    model: VLM
    tokenizer: Tokenizer
    prompt: Prompt
    data: MapDataset
    stages: Mapping[str, Stage]
    objective: Objective
    optimizer: OptimizerFactory
    schedule: Schedule
    device: str

    @cached_property
    def trained(self) -> set[str]:
        """Names of the parameters that any stage trains."""
        names = (name for name, _ in self.model.named_parameters())
        return {name for name in names if any(stage.trains(name) for stage in self.stages.values())}


def build_parts(cfg: Mapping[str, Any]) -> TrainingParts:
    """Seed torch, and build every part of a run.

    Args:
        cfg: a configuration as plain data, of the form of `conf/train.yaml`.

    Raises:
        ConfigError: the parts do not fit together.
    """
    trusted = cfg["trusted"]
    check(cfg, trusted=trusted, needs=RUN)
    torch.manual_seed(cfg["seed"])
    device = cfg["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    model = build(cfg, trusted=trusted).to(device)
    tokenizer, prompt, data, stages, optimizer, schedule = (
        instantiate(cfg[group], trusted=trusted)
        for group in ("tokenizer", "prompt", "data", "stage", "optimizer", "schedule")
    )
    objective = make_objective(cfg["objective"], model, trusted)
    return TrainingParts(model, tokenizer, prompt, data, stages, objective, optimizer, schedule, device)


def make_objective(card: Mapping[str, Any], model: VLM, trusted: Sequence[str] = ()) -> Objective:
    """Build an objective. One with parameters becomes `model.objective`, so that stages can train it.

    Args:
        card: card of the objective.
        model: the model that it is computed with.
        trusted: packages beside mmrnn whose classes the card may name.

    Raises:
        ConfigError: the model lacks what the objective needs.
    """
    wired = [model] if positional_names(find_target(card, trusted)) else []
    try:
        objective = instantiate(card, *wired, trusted=trusted)
    except ValueError as error:
        raise ConfigError(f"objective: {error}") from error
    if isinstance(objective, nn.Module):
        model.objective = objective.to(next(model.parameters()).device)
    return objective
