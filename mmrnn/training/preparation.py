"""Preparation of a run: what it says of itself, cached features, and the trainer with its parts connected."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmrnn.data.left_out import LeftOut
from mmrnn.inference.feature_cache import FeatureCache
from mmrnn.inference.fingerprint import tensors_fingerprint
from mmrnn.training.build import TrainingParts
from mmrnn.training.duration import estimate_duration
from mmrnn.training.ends import StopSignals
from mmrnn.training.evaluator import INTERIM_QUESTIONS, Evaluator
from mmrnn.training.loaders import make_loader
from mmrnn.training.loop.metrics import peak_flops, stage_costs
from mmrnn.training.loop.step_guard import StepGuard
from mmrnn.training.plan import StepCost
from mmrnn.training.precision import resolve
from mmrnn.training.reading.feature_cache import cache_datasets, images_to_cache
from mmrnn.training.reading.feature_store import FeatureStore
from mmrnn.training.reading.skipped import SkippedSamples
from mmrnn.training.run_log import RunLog
from mmrnn.training.saving.checkpointing import Checkpoints
from mmrnn.training.saving.saved_run import StartPoint
from mmrnn.training.trackers.console import Console
from mmrnn.training.trainer import Trainer
from mmrnn.types import MapDataset

MIN_PLANNED_STEPS = 50
"""Steps from which on a run says at its beginning how long it will take."""

Config = Mapping[str, Any]


def describe(parts: TrainingParts, out: Path, console: Console) -> None:
    """Say what is trained, where, and what of the data is left out."""
    sizes = {name: parameter.numel() for name, parameter in parts.model.named_parameters()}
    trained = sum(sizes[name] for name in parts.trained)
    steps = total_steps(parts)
    many = f", {parts.world.size} processes ({type(parts.strategy).__name__})" if parts.world.size > 1 else ""
    console.say(
        f"{sum(sizes.values()):,} parameters, {trained:,} of them trained, on {parts.device}{many}; {steps:,} steps; "
        f"in {out}"
    )
    for note in parts.model.load_notes:
        console.say(note)
    if (skipped := LeftOut.of(parts.data.left_out())).total:
        console.say(f"data: {skipped.total} records or turns are left out: {skipped}")


def make_features(
    parts: TrainingParts,
    splits: Mapping[str, MapDataset],
    cfg: Config,
    start: StartPoint | None,
    console: Console,
    signals: StopSignals,
) -> dict[str, FeatureCache | None]:
    """Cache the features of frozen encoders by data set, after printing how long the run will take."""
    datasets = {"train": parts.data, **splits}
    # A sharded encoder runs with the model alone.
    cached = not (parts.objective.needs_images or parts.strategy.shards)
    max_gib = float(cfg["feature_cache_gib"]) if cached else 0.0
    images = images_to_cache(parts.model, datasets, parts.trained, max_gib=max_gib, console=console)
    store = feature_store(parts, cfg) if images else FeatureStore()
    done = start.steps_done(parts.stages) if start else 0
    missing = sum(len(found) for found in images.values() if not store.holds(found))
    say_duration(parts, splits, missing, cfg, done, console)
    console.begin("features")
    return dict.fromkeys(datasets) | cache_datasets(
        parts.model.modalities["image"],
        images,
        batch_size=cfg["evaluate"]["batch_size"],
        device=parts.device,
        precision=cfg["precision"],
        console=console,
        signals=signals,
        world=parts.world,
        store=store,
    )


def feature_store(parts: TrainingParts, cfg: Config) -> FeatureStore:
    """Return where features of the frozen image encoder are kept on disk, by all that they depend on."""
    if cfg["feature_folder"] is None:
        return FeatureStore()
    modality = parts.model.modalities["image"]
    facts = {
        "encoder": cfg["encoder"],
        "weights": tensors_fingerprint(modality.encoder.state_dict()),
        "dtypes": sorted({str(value.dtype) for value in modality.encoder.state_dict().values()}),
        "image": repr(modality.image),
        "precision": resolve(cfg["precision"], parts.device),
        "device": parts.device.type,
        "data": cfg["data"],
    }
    return FeatureStore(Path(cfg["feature_folder"]).expanduser(), facts)


def say_duration(
    parts: TrainingParts,
    splits: Mapping[str, MapDataset],
    cached_images: int,
    cfg: Config,
    done: int,
    console: Console,
) -> None:
    """Print how long a run will take that has taken some steps, unless few are left or several processes share them."""
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
    # Whatever a user's part raises there: for a figure of the log no run is ended.
    except Exception as error:
        console.say(f"FLOPs are not counted, as the model cannot be built on the meta device: {error}")
        return {}


def total_steps(parts: TrainingParts) -> int:
    """Return the number of steps of all stages."""
    return sum(stage.steps for stage in parts.stages.values())


def make_trainer(
    parts: TrainingParts,
    features: FeatureCache | None,
    evaluator: Evaluator,
    cfg: Config,
    out: Path,
    log: RunLog,
    start: StartPoint | None,
    checkpoints: Checkpoints,
    signals: StopSignals,
) -> Trainer:
    """Connect the parts with their data, the log and the evaluation."""
    return Trainer(
        parts=parts,
        out=out,
        load=make_loader(parts, features, cfg, out, log.console, signals),
        skipped=SkippedSamples(out, parts.world, max_skipped=cfg["max_skipped"], lines=log.lines),
        evaluate=evaluator.accuracy,
        log=log,
        start=start,
        checkpoints=checkpoints,
        signals=signals,
        guard=partial(StepGuard, max_bad_steps=cfg["max_bad_steps"], on_spike=cfg["on_spike"]),
        costs=known_costs(parts, cfg, features is not None, log.console),
        peak=cfg["peak_tflops"] * 1e12 if cfg["peak_tflops"] else peak_flops(parts.device),
        profile=cfg["profile"],
        precision=cfg["precision"],
        seed=cfg["seed"],
        log_every=cfg["log_every"],
        evaluate_every=cfg["evaluate"]["every"],
        train_chunk=cfg["train_chunk"],
        horizon=cfg["horizon"],
    )
