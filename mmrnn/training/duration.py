"""Duration of a run, estimated from one batch of each phase before it starts; nothing of the run is changed by it."""

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any

from torch import nn

from mmrnn.data.collate import Collator
from mmrnn.evaluation.accuracy import evaluate
from mmrnn.evaluation.conditions import Conditions
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.feature_cache import FeatureCache
from mmrnn.training.build import TrainingParts
from mmrnn.training.distributed.random_state import kept_random_state
from mmrnn.training.loop.ready import Ready
from mmrnn.training.loop.stepper import Stepper
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.reading.feature_cache import cache_features
from mmrnn.training.stage import Stage
from mmrnn.training.step import shares, unit_counts
from mmrnn.types import MapDataset, Sample

MAX_COPIED = 2**25
"""Parameters that are copied to time the optimizer."""


def estimate_duration(
    parts: TrainingParts,
    splits: Mapping[str, MapDataset],
    cfg: Mapping[str, Any],
    *,
    cached_images: int,
    interim_questions: int,
    done: int = 0,
) -> dict[str, float]:
    """Return the seconds that `features`, `training NAME` of every stage, and `evaluation` will take.

    Args:
        parts: of the run.
        splits: held-out samples by name.
        cfg: the configuration as plain data.
        cached_images: number of images whose features are computed before training; 0: they are computed in each step.
        interim_questions: number of questions that are asked between two steps (`evaluate.every`).
        done: steps that a stopped run has taken.
    """
    size = cfg["evaluate"]["batch_size"]
    stages, every = parts.stages.values(), cfg["evaluate"]["every"]
    train = _first(parts.data, max(stage.batch_size // stage.grad_accum_steps for stage in stages))
    asked = [sample for split in islice(splits.values(), 1) for sample in _first(split, size)]
    with kept_random_state(), eval_mode(parts.model):
        image, features = _time_features(parts, [*train, *asked], cfg) if cached_images else (0.0, None)
        question = _time_questions(parts, asked, features, cfg)
        training = {}
        for name, stage in parts.stages.items():
            left = min(max(0, stage.steps - done), stage.steps)
            done -= stage.steps
            asking = question * interim_questions * (left // every) if every else 0.0
            seconds = _time_step(parts, stage, train, features, cfg) if left else 0.0
            training[f"training {name}"] = seconds * left + asking
    evaluation = question * sum(len(split) for split in splits.values()) * _times_asked(parts, asked, cfg["evaluate"])
    return {"features": image * cached_images, **training, "evaluation": evaluation}


def _times_asked(parts: TrainingParts, samples: Sequence[Sample], settings: Mapping[str, Any]) -> float:
    """Number of plain questions that cost as much as one with all of its conditions."""
    distances, shots = Conditions.of(settings)
    found = 1.0 + len(distances) + sum(each + 1 for each in shots)
    if distances and samples:
        collator = Collator(parts.tokenizer, parts.prompt, dict(parts.model.modalities))
        found += max(distances) / max(fmean(map(collator.length, samples)), 1)
    return found


def _first(data: MapDataset, count: int) -> list[Sample]:
    return [data[index] for index in range(min(count, len(data)))]


def _time_features(
    parts: TrainingParts, samples: Sequence[Sample], cfg: Mapping[str, Any]
) -> tuple[float, FeatureCache]:
    """Seconds an image, and the features of the samples."""
    images = [*{image.key: image for sample in samples for image in sample.images}.values()]
    modality, began = parts.model.modalities["image"], time.monotonic()
    options = {"batch_size": cfg["evaluate"]["batch_size"], "device": parts.device, "precision": cfg["precision"]}
    features = cache_features(modality, images, **options)
    return (time.monotonic() - began) / max(len(images), 1), features


def _time_questions(
    parts: TrainingParts, samples: Sequence[Sample], features: FeatureCache | None, cfg: Mapping[str, Any]
) -> float:
    """Seconds a question."""
    if not samples:
        return 0.0
    assistant = Assistant(parts.model, parts.tokenizer, parts.prompt, features=features)
    options = {"batch_size": len(samples), "max_new_tokens": cfg["evaluate"]["max_new_tokens"]}
    evaluate(assistant, samples[:1], batch_size=1, max_new_tokens=2)  # the first call compiles native code
    began = time.monotonic()
    evaluate(assistant, samples, **options)
    return (time.monotonic() - began) / len(samples)


def _time_step(
    parts: TrainingParts,
    stage: Stage,
    samples: Sequence[Sample],
    features: FeatureCache | None,
    cfg: Mapping[str, Any],
) -> float:
    """Seconds a step; 0 where none of the samples can be trained on."""
    size = stage.batch_size // stage.grad_accum_steps
    collate = Collator(
        parts.tokenizer, parts.prompt, dict(parts.model.modalities), features, max_length=cfg["max_length"]
    )
    stage.apply_freezing(parts.model)
    parts.model.eval()
    groups = param_groups(parts.model, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)
    stepper = Stepper(
        step=parts.step,
        stage=stage,
        optimizer=(stage.optimizer or parts.optimizer)(groups, stage.lr),
        schedule=stage.schedule or parts.schedule,
        device=parts.device,
        precision=cfg["precision"],
        train_chunk=cfg["train_chunk"],
        horizon=cfg["horizon"],
    )
    seconds = 0.0
    for _ in range(2):  # the first one compiles native code and is slower
        began = time.monotonic()
        if (batch := collate(samples[:size])) is None:
            return 0.0
        counts = unit_counts(parts.objective, batch)
        stepper.attempt(Ready([batch], shares([counts], counts), [], []))
        seconds = time.monotonic() - began
    update = _time_update(parts, stage)
    parts.model.zero_grad(set_to_none=True)
    return seconds * stage.grad_accum_steps + update


def _time_update(parts: TrainingParts, stage: Stage) -> float:
    """Seconds of an update, measured on copies of parameters up to `MAX_COPIED`."""
    groups = param_groups(parts.model, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)
    total, copied = sum(parameter.numel() for group in groups for parameter in group["params"]), 0
    for group in groups:
        copies = []
        for parameter in group["params"]:
            if parameter.grad is not None and copied + parameter.numel() <= MAX_COPIED:
                copies.append(nn.Parameter(parameter.detach().clone()))
                copies[-1].grad = parameter.grad.clone()
                copied += parameter.numel()
        group["params"] = copies
    if not copied:
        return 0.0
    optimizer = (stage.optimizer or parts.optimizer)([group for group in groups if group["params"]], stage.lr)
    optimizer.step()
    began = time.monotonic()
    optimizer.step()
    return (time.monotonic() - began) * total / copied
