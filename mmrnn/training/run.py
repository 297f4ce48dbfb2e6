"""A run: from a configuration to a trained model, its accuracy and its report, in one resumable run folder.

The folder holds `config.yaml`, `log.jsonl` (a record every few steps), `snapshot.pt` until the run is finished, and
then `model.safetensors`, `answers.jsonl`, `result.json` and `report.html`. While it is trained, `.lock` names its
process; `failure.json` says why it ended without a result.
"""

import json
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmrnn.checkpoints import config_file
from mmrnn.checkpoints.save import save
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.accuracy import mean, scores
from mmrnn.evaluation.reports.run_folder import RESULT, read_log, read_result, remove_failure, write_failure
from mmrnn.io.lock import lock_folder
from mmrnn.model.vlm import VLM
from mmrnn.training.blank import blank_inputs
from mmrnn.training.build import TrainingParts, build_parts
from mmrnn.training.distributed.whole import whole_model
from mmrnn.training.distributed.world import World
from mmrnn.training.duration import estimate_duration
from mmrnn.training.evaluator import INTERIM_QUESTIONS, Evaluator
from mmrnn.training.feature_cache import FeatureCache, cache_datasets, images_to_cache
from mmrnn.training.metrics import peak_flops, stage_costs
from mmrnn.training.plan import StepCost
from mmrnn.training.reading import make_loader
from mmrnn.training.result import write_result
from mmrnn.training.run_log import RunLog
from mmrnn.training.skipped import SkippedSamples
from mmrnn.training.trackers.choice import NoTracker
from mmrnn.training.trackers.console import Console
from mmrnn.training.trackers.tracking import track
from mmrnn.training.trainer import Trainer
from mmrnn.types import MapDataset

MIN_PLANNED_STEPS = 50
"""Steps from which on a run says at its beginning how long it will take."""

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
        FolderInUseError: another run trains in the folder.
        ValueError: a file in the folder is damaged; the message names it.
        TrainingError: loss, gradient or weights are not finite, or there is nothing to train on.
    """
    world = world or World()
    cfg = json.loads(json.dumps({**plain(cfg), "out": None, "choices": dict(choices or {})}))
    cfg.pop("hydra", None)
    check_same(cfg, world)
    with ExitStack() as stack:
        objective = world.on_main(lambda: _enter(cfg, out, stack))
        if objective is not None:
            return objective
        began = time.monotonic()
        try:
            run(build_parts(cfg, world), cfg, out, began)
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
    if (out / RESULT).is_file() and config_file.read_config(out) == cfg:
        return read_result(out)["objective"]
    stack.enter_context(lock_folder(out))
    before = config_file.read_config(out)
    if before is not None and before != cfg:
        names = sorted(name for name in {*before, *cfg} if before.get(name) != cfg.get(name))
        raise ConfigError(f"out: {out} holds a run of another configuration (it differs in {', '.join(names)})")
    if (out / RESULT).is_file():
        if before is None:
            raise ConfigError(f"out: {out} holds {RESULT} without {config_file.CONFIG}; choose another folder")
        return read_result(out)["objective"]
    remove_failure(out)
    return None


def run(parts: TrainingParts, cfg: Config, out: Path, began: float) -> None:
    """Train, save, evaluate and report with built parts.

    Args:
        parts: what `build_parts` made of the configuration.
        cfg: the configuration as plain data.
        out: folder of the run.
        began: `time.monotonic()` at the beginning, for the duration in the result.

    Raises:
        ValueError: `save_frozen` is false, and no base holds the frozen parameters.
        TrainingError: loss, gradient or weights are not finite, or there is nothing to train on.
    """
    world = parts.world
    console = Console(quiet=not world.main)
    tracker = instantiate(cfg["tracker"], trusted=cfg["trusted"])
    only = None if cfg["save_frozen"] else saved_names(parts.model, parts.trained)
    if only is not None:
        config_file.check_base(cfg, [name for name in parts.model.state_dict() if name not in only])
    world.on_main(lambda: config_file.save_config(out, cfg))
    describe(parts, out, console)
    samples = cfg["evaluate"]["samples"] if parts.model.backbone.generates else 0
    splits = parts.data.held_out(samples) if samples else {}
    datasets = {"train": parts.data, **splits}
    # A sharded encoder runs with the model alone.
    cached = not (parts.objective.needs_hidden_states or parts.strategy.shards)
    max_gib = float(cfg["feature_cache_gib"]) if cached else 0.0
    images = images_to_cache(parts.model, datasets, parts.trained, max_gib=max_gib, console=console)
    say_duration(parts, splits, sum(len(found) for found in images.values()), cfg, out, console)
    console.begin("features")
    features = dict.fromkeys(datasets) | cache_datasets(
        parts.model.modalities["image"],
        images,
        batch_size=cfg["evaluate"]["batch_size"],
        device=parts.device,
        precision=cfg["precision"],
        console=console,
        world=world,
    )
    if world.size > 1:
        parts.step.blank = blank_inputs(parts.model, cached=features["train"] is not None).to(parts.device)
    evaluator = Evaluator(parts, splits, features, cfg["evaluate"])
    with track(tracker if world.main else NoTracker(), out, cfg, console.say) as tracking:
        log = RunLog(out=out, world=world, console=console, tracking=tracking, steps=total_steps(parts))
        make_trainer(parts, features["train"], evaluator, cfg, out, log).train()
        console.begin("evaluation")
        model = whole_model(parts.model, main_only=True) if parts.strategy.shards else parts.model
        world.on_main(lambda: save(model, out, config=cfg, only=only))
        found = evaluator.answers(track=lambda name: console.tracker(f"held out: {name}"))
        result = world.on_main(lambda: write_result(out, parts, splits, found, cfg, began))
        means = {name: mean(scores(one.answers)) for name, one in found.items() if one.answers}
        tracking.log({"step": log.steps, "accuracy": means})
    console.table(result["accuracy"])
    console.say(f"{result['seconds']:.0f} s; report: {out / 'report.html'}")


def describe(parts: TrainingParts, out: Path, console: Console) -> None:
    """Say what is trained, where, and what of the data is left out."""
    sizes = {name: parameter.numel() for name, parameter in parts.model.named_parameters()}
    trained = sum(sizes[name] for name in parts.trained)
    steps = total_steps(parts)
    many = f", {parts.world.size} processes ({type(parts.strategy).__name__})" if parts.world.size > 1 else ""
    console.say(
        f"{out}: {sum(sizes.values()):,} parameters, {trained:,} of them trained, on {parts.device}{many}; "
        f"{steps:,} steps"
    )
    for note in parts.model.load_notes:
        console.say(note)
    if (skipped := LeftOut.of(parts.data.left_out())).total:
        console.say(f"data: {skipped.total} records or turns are left out: {skipped}")


def say_duration(
    parts: TrainingParts,
    splits: Mapping[str, MapDataset],
    cached_images: int,
    cfg: Config,
    out: Path,
    console: Console,
) -> None:
    """Print how long a run will take, unless few steps are left or several processes share them."""
    records = read_log(out)
    done = records[-1]["step"] if records else 0
    if total_steps(parts) - done < MIN_PLANNED_STEPS or parts.world.size > 1:
        return
    asked = sum(min(len(split), INTERIM_QUESTIONS) for split in splits.values())
    console.plan(estimate_duration(parts, splits, cfg, cached_images=cached_images, interim_questions=asked, done=done))


def known_costs(parts: TrainingParts, cfg: Config, cached: bool, console: Console) -> dict[str, StepCost]:
    """Return the FLOPs of the stages where they are known; `cached`: features of images are."""
    if not parts.objective.needs_backbone:
        return {}
    try:
        return stage_costs(cfg, parts.stages, cached=["image"] if cached else [])
    except Exception as error:
        console.say(f"FLOPs are not counted, as the model cannot be built on the meta device: {error}")
        return {}


def total_steps(parts: TrainingParts) -> int:
    """Return the number of steps of all stages."""
    return sum(stage.steps for stage in parts.stages.values())


def saved_names(model: VLM, trained: Collection[str]) -> list[str]:
    """Names of what is saved of a model without its frozen parameters: trained parameters and buffers."""
    return sorted({*trained, *(name for name, _ in model.named_buffers())})


def make_trainer(
    parts: TrainingParts,
    features: FeatureCache | None,
    evaluator: Evaluator,
    cfg: Config,
    out: Path,
    log: RunLog,
) -> Trainer:
    """Connect the parts with their data, the log and the evaluation."""
    return Trainer(
        parts=parts,
        out=out,
        load=make_loader(parts, features, cfg, out, log.console),
        skipped=SkippedSamples(out, parts.world, max_skipped=cfg["max_skipped"]),
        evaluate=evaluator.accuracy,
        log=log,
        costs=known_costs(parts, cfg, features is not None, log.console),
        peak=cfg["peak_tflops"] * 1e12 if cfg["peak_tflops"] else peak_flops(parts.device),
        profile=cfg["profile"],
        precision=cfg["precision"],
        log_every=cfg["log_every"],
        evaluate_every=cfg["evaluate"]["every"],
        save_every_seconds=float(cfg["save_every_seconds"]),
        train_chunk=cfg["train_chunk"],
        horizon=cfg["horizon"],
    )
