"""A run: from a configuration to a trained model, its accuracy and its report, in one resumable run folder.

The folder holds `config.yaml`, `log.jsonl` (a record every few steps), `checkpoints` until the run is finished, and
then `model.safetensors`, `answers.jsonl`, `result.json` and `report.html`. While it is trained, `.lock` names its
process; `failed.json` says why it ended without a result, and `bad_steps.jsonl` names the samples of bad steps.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from mmrnn.checkpoints import config_file
from mmrnn.checkpoints.save import save
from mmrnn.config.device_memory import reset_peak_memory
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.evaluation.accuracy import mean, scores
from mmrnn.evaluation.reports.run_folder import RESULT, read_result, remove_failure, write_failure
from mmrnn.io.lock import lock_folder
from mmrnn.model.objective import OBJECTIVE
from mmrnn.model.vlm import VLM
from mmrnn.training.benchmarks import check_benchmarks, run_benchmarks
from mmrnn.training.build import TrainingParts, build_parts
from mmrnn.training.distributed.lost_rank import name_lost_ranks
from mmrnn.training.distributed.whole import whole_model
from mmrnn.training.distributed.world import World
from mmrnn.training.ends import StopSignals
from mmrnn.training.evaluator import Evaluator
from mmrnn.training.loop.blank import blank_inputs
from mmrnn.training.preparation import describe, make_features, make_trainer, total_steps
from mmrnn.training.result import write_result
from mmrnn.training.run_log import RunLog
from mmrnn.training.saving.checkpointing import Checkpoints, CheckpointSettings
from mmrnn.training.saving.run_clock import RunClock
from mmrnn.training.saving.run_config import differences
from mmrnn.training.saving.saved_run import find_start
from mmrnn.training.trackers.choice import NoTracker
from mmrnn.training.trackers.console import Console
from mmrnn.training.trackers.tracking import track

Config = Mapping[str, Any]


def train(cfg: Config, out: Path, choices: Mapping[str, str] | None = None, world: World | None = None) -> float:
    """Train, evaluate and report. A stopped run resumes; a finished one is left as it is.

    Args:
        cfg: the configuration (`conf/train.yaml`).
        out: folder of the run, the same on all ranks.
        choices: chosen option of every group, for the report.
        world: the processes; None: this one alone.

    Returns:
        The error rate on held-out questions; the last loss where nothing is held out.

    Raises:
        ConfigError: the configuration does not fit, differs between ranks, or the folder holds another run.
        RankError: another process failed.
        FolderInUseError: another run trains in the folder.
        ValueError: a file in the folder is damaged; the message names it.
        TrainingError: loss, gradient or weights are not finite, or there is nothing to train on.
        DiskFullError: there is no space for what the run writes.
        StoppedRun: a signal has stopped the run; it can be resumed.
    """
    world = world or World()
    cfg = json.loads(json.dumps({**plain(cfg), "out": None, "choices": dict(choices or {})}))
    cfg.pop("hydra", None)
    with world.all_or_none():
        check_same(cfg, world)
    with ExitStack() as stack:
        objective = world.on_main(lambda: _enter(cfg, out, stack))
        if objective is not None:
            return objective
        try:
            with RunClock(out, anew=cfg["resume"] == "never", writes=world.main) as clock:
                run(build_parts(cfg, world), cfg, out, clock)
        except BaseException as error:
            if world.main:
                write_failure(out, error)
            raise
    return world.on_main(lambda: read_result(out)["objective"])


def check_same(cfg: Config, world: World) -> None:
    """Compare the configurations of all ranks.

    Raises:
        ConfigError: they differ.
    """
    texts = world.gather({name: json.dumps(value, sort_keys=True) for name, value in cfg.items()})
    for rank, other in enumerate(texts):
        if other != texts[0]:
            names = sorted(name for name in {*other, *texts[0]} if other.get(name) != texts[0].get(name))
            raise ConfigError(
                f"rank {rank} has another configuration than rank 0 (it differs in {', '.join(names)}); start all "
                "processes with the same overrides and the same cards"
            )


def _enter(cfg: Config, out: Path, stack: ExitStack) -> float | None:
    """Lock the folder of a run until `stack` closes; return the result of a finished run, else None."""
    before = config_file.read_config(out)
    if (out / RESULT).is_file() and before is not None and not differences(before, cfg):
        return read_result(out)["objective"]
    stack.enter_context(lock_folder(out))
    before = config_file.read_config(out)
    anew = cfg["resume"] == "never" and not (out / RESULT).is_file()
    if before is not None and not anew and (names := differences(before, cfg)):
        raise ConfigError(
            f"out: {out} holds a run of another configuration (it differs in {', '.join(names)}); "
            "repeat its overrides, which are in its config.yaml, or choose another folder (out=...)"
        )
    if (out / RESULT).is_file():
        if before is None:
            raise ConfigError(f"out: {out} holds {RESULT} without {config_file.CONFIG}; choose another folder")
        return read_result(out)["objective"]
    remove_failure(out)
    return None


def run(parts: TrainingParts, cfg: Config, out: Path, clock: RunClock) -> None:
    """Train, save, evaluate and report with built parts.

    Args:
        parts: what `build_parts` made of the configuration.
        cfg: the configuration as plain data.
        out: folder of the run.
        clock: seconds that the run takes, over all attempts at it.

    Raises:
        ConfigError: there is no checkpoint where `resume` says, or it is of another configuration.
        ValueError: `save_frozen` is false, and no base holds the frozen parameters.
        TrainingError: loss, gradient or weights are not finite, or there is nothing to train on.
        DiskFullError: there is no space for what the run writes.
        StoppedRun: a signal has stopped the run; it can be resumed.
    """
    world = parts.world
    reset_peak_memory(parts.device)
    # Jobs of a launcher that run at once write to one terminal.
    console = Console(quiet=not world.main, label=f"{out.parent.name}/{out.name}" if parent_process() else "")
    tracker = instantiate(cfg["tracker"], trusted=cfg["trusted"])
    only = None if cfg["save_frozen"] else saved_names(parts.model, parts.trained)
    if only is not None:
        names = (name for name in parts.model.state_dict() if not name.startswith(OBJECTIVE))
        config_file.check_base(cfg, [name for name in names if name not in only])
    start = find_start(out, cfg, world, console.say)
    world.on_main(lambda: config_file.save_config(out, cfg))
    describe(parts, out, console)
    world.on_main(lambda: check_benchmarks(cfg["evaluate"], parts.prompt, parts.model))
    samples = cfg["evaluate"]["samples"] if parts.model.backbone.generates else 0
    splits = parts.data.held_out(samples) if samples else {}
    with StopSignals() as signals, name_lost_ranks(world, signals):
        features = make_features(parts, splits, cfg, start, console, signals)
        if world.size > 1:
            parts.step.blank = blank_inputs(parts.model, cached=features["train"] is not None).to(parts.device)
        evaluator = Evaluator(parts, splits, features, cfg["evaluate"], signals)
        write = partial(save_whole, parts, cfg, only)
        with track(tracker if world.main else NoTracker(), out, cfg, console.say) as tracking:
            log = RunLog(out=out, world=world, console=console, tracking=tracking, steps=total_steps(parts))
            with Checkpoints(out, world, cfg, checkpoint_settings(cfg), say=console.say, export=write) as checkpoints:
                trainer = make_trainer(parts, features["train"], evaluator, cfg, out, log, start, checkpoints, signals)
                trainer.train()
            world.on_main(log.lines.finish)
            console.begin("evaluation")
            write(out)
            found = evaluator.answers(track=lambda name: console.tracker(f"held out: {name}"))
            run_benchmarks(evaluator, cfg, out, console.tracker)
            result = world.on_main(lambda: write_result(out, parts, splits, found, cfg, clock.seconds))
            means = {name: mean(scores(one.answers)) for name, one in found.items() if one.answers}
            tracking.log({"step": log.steps, "accuracy": means})
    console.table(result["accuracy"])
    console.say(f"{result['seconds']:.0f} s; report: {out / 'report.html'}")


def save_whole(parts: TrainingParts, cfg: Config, only: list[str] | None, folder: Path) -> None:
    """Write the model as a checkpoint that `mmrnn.load` opens; all ranks call it, and rank 0 writes.

    Raises:
        DiskFullError: on rank 0, there is no space for it.
    """
    with parts.average.swapped(parts.model):
        model = whole_model(parts.model, main_only=True) if parts.strategy.shards else parts.model
        if parts.world.main:
            save(model, folder, config=cfg, only=only)


def checkpoint_settings(cfg: Config) -> CheckpointSettings:
    """Knobs of the checkpoints of a run."""
    return CheckpointSettings(**{knob.name: cfg[knob.name] for knob in fields(CheckpointSettings)})


def saved_names(model: VLM, trained: Collection[str]) -> list[str]:
    """Names of what is saved of a model without its frozen parameters: trained parameters and buffers."""
    return sorted({*trained, *(name for name, _ in model.named_buffers())})
