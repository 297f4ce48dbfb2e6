"""Parts of a training run, built from its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.skip_init import meta_parameters
from mmrnn.config.validate import RUN, check
from mmrnn.data.sampler import mixed_seed
from mmrnn.model.build import build
from mmrnn.model.objective import build_objective
from mmrnn.model.start import Start, build_on_meta
from mmrnn.model.vlm import VLM
from mmrnn.training.compiled import compile_blocks
from mmrnn.training.distributed.auto import choose_strategy
from mmrnn.training.distributed.materialize import materialize
from mmrnn.training.distributed.processes import check_processes
from mmrnn.training.distributed.strategies import Auto
from mmrnn.training.distributed.world import World
from mmrnn.training.ema import EMA
from mmrnn.training.frozen import cast_frozen, resolve_frozen_dtype
from mmrnn.training.precision import resolve
from mmrnn.training.stage import Stage
from mmrnn.training.step import TrainStep
from mmrnn.types import (
    Batching,
    MapDataset,
    Objective,
    OptimizerFactory,
    Prompt,
    Schedule,
    Strategy,
    Tokenizer,
)


@dataclass(frozen=True)
class TrainingParts:
    """Everything that a training run works with.

    Attributes:
        step: model and objective as one module.
        optimizer: of the stages that have none of their own.
        schedule: of the stages that have none of their own.
        batching: distribution of the samples of a step over ranks and micro-batches.
        strategy: distribution over the processes.
        world: the processes.
        device: of this process.
        frozen_dtype: of the matrices that no stage trains.
        average: of the parameters that any stage trains.
    """

    step: TrainStep
    tokenizer: Tokenizer
    prompt: Prompt
    data: MapDataset
    stages: Mapping[str, Stage]
    optimizer: OptimizerFactory
    schedule: Schedule
    batching: Batching
    strategy: Strategy
    world: World
    device: torch.device
    average: EMA
    frozen_dtype: torch.dtype = torch.float32

    @property
    def model(self) -> VLM:
        """The model."""
        return self.step.model

    @property
    def objective(self) -> Objective:
        """The loss."""
        return self.step.objective

    @cached_property
    def trained(self) -> set[str]:
        """Names of the parameters that any stage trains."""
        return trained_names(self.model, self.stages)


def trained_names(model: VLM, stages: Mapping[str, Stage]) -> set[str]:
    """Return the names of the parameters that any stage trains."""
    names = (name for name, _ in model.named_parameters())
    return {name for name in names if any(stage.trains(name) for stage in stages.values())}


def build_parts(cfg: Mapping[str, Any], world: World | None = None) -> TrainingParts:
    """Seed torch, and build every part of a run.

    Args:
        cfg: a configuration as plain data, of the form of `conf/train.yaml`.
        world: the processes; None: this one alone.

    Raises:
        ConfigError: the parts do not fit together or not the number of processes, or the data cannot be read.
        RankError: another process failed.
    """
    trusted, world = cfg["trusted"], world or World()
    with world.all_or_none():
        check(cfg, trusted=trusted, needs=RUN)
        check_processes(cfg, world.size)
        tokenizer, prompt, data, stages, optimizer, schedule, batching, strategy = (
            instantiate(cfg[group], trusted=trusted)
            for group in ("tokenizer", "prompt", "data", "stage", "optimizer", "schedule", "batching", "strategy")
        )
        try:
            len(data)  # reads or indexes its files: cheaper than to build a model first
        except ValueError as error:
            raise ConfigError(str(error)) from error
        device = world.device(cfg["device"])
        frozen_dtype = resolve_frozen_dtype(cfg["frozen_dtype"], cfg["precision"], device)
    torch.manual_seed(cfg["seed"])
    step, strategy = make_step(cfg, stages, strategy, world, device, frozen_dtype)
    try:
        batching = batching.resolve(step.model.backbone, step.objective, data, world.size)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if world.rank:
        torch.manual_seed(mixed_seed(cfg["seed"], str(world.rank)))  # dropout must differ between the processes
    average = EMA(step.model, trained_names(step.model, stages), cfg["ema"])
    return TrainingParts(
        step,
        tokenizer,
        prompt,
        data,
        stages,
        optimizer,
        schedule,
        batching,
        strategy,
        world,
        device,
        average,
        frozen_dtype,
    )


def make_step(
    cfg: Mapping[str, Any],
    stages: Mapping[str, Stage],
    strategy: Strategy,
    world: World,
    device: torch.device,
    frozen_dtype: torch.dtype,
) -> tuple[TrainStep, Strategy]:
    """Build model and objective as the strategy holds them, on a device; and choose the strategy.

    Raises:
        ConfigError: the parts do not fit together.
    """
    sizes = None
    if isinstance(strategy, Auto) and world.size > 1:
        sizes, _ = build_step_on_meta({**cfg, "weights": {}})
        cast_frozen(sizes.model, trained_names(sizes.model, stages), frozen_dtype)
    strategy = choose_strategy(strategy, sizes, stages, world, device)
    step, start = build_step_on_meta(cfg) if strategy.shards else (build_step(cfg), None)
    cast_frozen(step.model, trained_names(step.model, stages), frozen_dtype)
    if cfg["compile"]:
        compile_blocks(step.model.backbone)
    strategy.shard(step, resolve(cfg["precision"], device))
    if start is None:
        step.to(device)
    else:
        materialize(step, start, device)
    return step, strategy


def build_step(cfg: Mapping[str, Any]) -> TrainStep:
    """Build model and objective in memory.

    Raises:
        ConfigError: the parts do not fit together.
    """
    model = build(cfg, trusted=cfg["trusted"])
    return TrainStep(model, make_objective(cfg["objective"], model, cfg["trusted"]))


def build_step_on_meta(cfg: Mapping[str, Any]) -> tuple[TrainStep, Start]:
    """Build model and objective without memory for parameters, and map the files of their weights.

    Raises:
        ConfigError: the parts do not fit together.
    """
    model, start = build_on_meta(cfg, trusted=cfg["trusted"])
    with meta_parameters():
        objective = make_objective(cfg["objective"], model, cfg["trusted"])
    start.initialisers.append(objective.reset)
    return TrainStep(model, objective), start


def make_objective(card: Mapping[str, Any], model: VLM, trusted: Sequence[str] = ()) -> Objective:
    """Build an objective. One with parameters becomes `model.objective`, so that stages can train it.

    Args:
        card: card of the objective.
        model: the model that it is computed with.
        trusted: packages beside mmrnn whose classes the card may name.

    Raises:
        ConfigError: the model lacks what the objective needs.
    """
    objective = build_objective(card, model, trusted)
    if isinstance(objective, nn.Module):
        model.objective = objective
    return objective
