"""A run: from a configuration to a trained model, its accuracy and its report, in one resumable run folder.

The folder holds `config.yaml`, `log.jsonl` (a record every few steps), `snapshot.pt` until the run is finished, and
then `model.safetensors`, `answers.jsonl`, `result.json` and `report.html`. While it is trained, `.lock` names its
process; `failure.json` says why it ended without a result.
"""

import json
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmrnn.checkpoints import config_file
from mmrnn.checkpoints.save import save
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.data.collate import Collator
from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.held_out import HeldOut
from mmrnn.evaluation.reports.run_folder import RESULT, read_log, read_result, remove_failure, write_failure
from mmrnn.inference.assistant import Assistant
from mmrnn.io.lock import lock_folder
from mmrnn.model.vlm import VLM
from mmrnn.training.build import TrainingParts, build_parts
from mmrnn.training.duration import estimate_duration
from mmrnn.training.feature_cache import FeatureCache, cache_datasets, images_to_cache
from mmrnn.training.loader import StepLoader
from mmrnn.training.result import write_result
from mmrnn.training.trackers.console import Console
from mmrnn.training.trainer import Trainer
from mmrnn.types import MapDataset

INTERIM_QUESTIONS = 120
"""Questions of each split that are asked during training."""

MIN_PLANNED_STEPS = 50
"""Steps from which on a run says at its beginning how long it will take."""

Config = Mapping[str, Any]


def train(cfg: Config, out: Path, choices: Mapping[str, str] | None = None) -> float:
    """Train, evaluate and report. A stopped run resumes; a finished one is left as it is.

    Args:
        cfg: the configuration (`conf/train.yaml`).
        out: folder of the run.
        choices: chosen option of every group, for the report.

    Returns:
        The error rate on held-out questions; the last loss where nothing is held out.

    Raises:
        ConfigError: the configuration does not fit, or the folder holds another run.
        FolderInUseError: another process trains in the folder.
        ValueError: a file in the folder is damaged; the message names it.
        TrainingError: loss, gradient or weights are not finite, or there is nothing to train on.
    """
    cfg = json.loads(json.dumps({**plain(cfg), "out": None, "choices": dict(choices or {})}))
    cfg.pop("hydra", None)
    if (out / RESULT).is_file() and config_file.read_config(out) == cfg:
        return read_result(out)["objective"]
    with lock_folder(out):
        before = config_file.read_config(out)
        if before is not None and before != cfg:
            names = sorted(name for name in {*before, *cfg} if before.get(name) != cfg.get(name))
            raise ConfigError(f"out: {out} holds a run of another configuration (it differs in {', '.join(names)})")
        if (out / RESULT).is_file():
            if before is None:
                raise ConfigError(f"out: {out} holds {RESULT} without {config_file.CONFIG}; choose another folder")
            return read_result(out)["objective"]
        remove_failure(out)
        began = time.monotonic()
        try:
            run(build_parts(cfg), cfg, out, began)
        except BaseException as error:
            write_failure(out, error)
            raise
    return read_result(out)["objective"]


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
    console = Console()
    only = None if cfg["save_frozen"] else saved_names(parts.model, parts.trained)
    if only is not None:
        config_file.check_base(cfg, [name for name in parts.model.state_dict() if name not in only])
    config_file.save_config(out, cfg)
    sizes = {name: parameter.numel() for name, parameter in parts.model.named_parameters()}
    trained = sum(sizes[name] for name in parts.trained)
    steps = sum(stage.steps for stage in parts.stages.values())
    console.say(
        f"{out}: {sum(sizes.values()):,} parameters, {trained:,} of them trained, on {parts.device}; {steps:,} steps"
    )

    if (skipped := LeftOut.of(parts.data.left_out())).total:
        console.say(f"data: {skipped.total} records or turns are left out: {skipped}")
    samples = cfg["evaluate"]["samples"] if parts.model.backbone.generates else 0
    splits = parts.data.held_out(samples) if samples else {}
    datasets = {"train": parts.data, **splits}
    max_gib = 0.0 if parts.objective.needs_hidden_states else float(cfg["feature_cache_gib"])
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
    )
    console.begin("training")
    held_out = make_held_out(parts, splits, features, cfg["evaluate"])
    make_trainer(parts, features, held_out, cfg, out, console).train()
    console.begin("evaluation")
    save(parts.model, out, config=cfg, only=only)
    result = write_result(out, parts, held_out, cfg, began, console)
    console.table(result["accuracy"])
    console.say(f"{result['seconds']:.0f} s; report: {out / 'report.html'}")


def say_duration(
    parts: TrainingParts,
    splits: Mapping[str, MapDataset],
    cached_images: int,
    cfg: Config,
    out: Path,
    console: Console,
) -> None:
    """Print how long a run will take, unless few steps are left."""
    records = read_log(out)
    done = records[-1]["step"] if records else 0
    if sum(stage.steps for stage in parts.stages.values()) - done < MIN_PLANNED_STEPS:
        return
    asked = sum(min(len(split), INTERIM_QUESTIONS) for split in splits.values())
    console.plan(estimate_duration(parts, splits, cfg, cached_images=cached_images, interim_questions=asked, done=done))


def saved_names(model: VLM, trained: Collection[str]) -> list[str]:
    """Names of what is saved of a model without its frozen parameters: trained parameters and buffers."""
    return sorted({*trained, *(name for name, _ in model.named_buffers())})


def make_held_out(
    parts: TrainingParts,
    splits: Mapping[str, MapDataset],
    features: Mapping[str, FeatureCache | None],
    settings: Config,
) -> HeldOut:
    """Connect the held-out splits with the model that is trained."""
    assistants = {
        name: Assistant(parts.model, parts.tokenizer, parts.prompt, features=features[name]) for name in splits
    }
    return HeldOut(splits, assistants, batch_size=settings["batch_size"], max_new_tokens=settings["max_new_tokens"])


def make_trainer(
    parts: TrainingParts,
    features: Mapping[str, FeatureCache | None],
    held_out: HeldOut,
    cfg: Config,
    out: Path,
    console: Console,
) -> Trainer:
    """Connect the parts with their data, the log and the evaluation."""
    collate = Collator(
        parts.tokenizer,
        parts.prompt,
        dict(parts.model.modalities),
        features["train"],
        max_length=cfg["max_length"],
        pack=cfg["pack"],
    )
    return Trainer(
        parts=parts,
        out=out,
        load=partial(
            StepLoader,
            parts.data,
            collate,
            parts.objective,
            seed=cfg["seed"],
            workers=cfg["workers"],
            pin_memory=torch.device(parts.device).type == "cuda",
        ),
        evaluate=partial(held_out.accuracy, INTERIM_QUESTIONS),
        console=console,
        precision=cfg["precision"],
        log_every=cfg["log_every"],
        evaluate_every=cfg["evaluate"]["every"],
        save_every_seconds=float(cfg["save_every_seconds"]),
    )
