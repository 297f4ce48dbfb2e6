"""Loaders of the stages of a run: its batching, and the lengths that it needs."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmrnn.config.device import KINDS
from mmrnn.data.collate import Collator
from mmrnn.data.lengths import LengthStore, data_folder, sample_lengths
from mmrnn.inference.feature_cache import FeatureCache
from mmrnn.training.build import TrainingParts
from mmrnn.training.ends import StopSignals
from mmrnn.training.reading.loader import StepLoader
from mmrnn.training.trackers.console import Console


def make_loader(
    parts: TrainingParts,
    features: FeatureCache | None,
    cfg: Mapping[str, Any],
    out: Path,
    console: Console,
    signals: StopSignals,
) -> Callable[..., StepLoader]:
    """Return the loader of a stage, as a function of the stage and of the number of `samples` that the run has read.

    The lengths of all samples are read, or measured by all ranks together, if the batching needs them.

    Args:
        parts: parts of the run.
        features: of the images; None: images are opened and encoded at every step.
        cfg: the configuration as plain data.
        out: folder of the run.
        console: shows the progress.
        signals: one of them ends the measurement.

    Raises:
        StoppedRun: this process received a signal.
    """
    collate = Collator(
        parts.tokenizer,
        parts.prompt,
        dict(parts.model.modalities),
        features,
        max_length=cfg["max_length"],
        pack=parts.batching.packs,
    )
    lengths = None
    if parts.batching.needs_lengths(parts.world.size):
        lengths = sample_lengths(
            parts.data,
            collate,
            length_store(cfg, out),
            parts.world,
            workers=cfg["workers"],
            track=signals.checked(console.tracker("lengths of the samples")),
        )
    return partial(
        StepLoader,
        parts.data,
        collate,
        parts.objective,
        batching=parts.batching,
        seed=cfg["seed"],
        rank=parts.world.rank,
        size=parts.world.size,
        workers=cfg["workers"],
        pin_memory=KINDS[parts.device.type].pinned_memory,
        timeout=cfg["loader_timeout"],
        lengths=lengths,
    )


def length_store(cfg: Mapping[str, Any], out: Path) -> LengthStore:
    """Return where the lengths of the training samples are stored: beside the data, else in the folder of the run."""
    beside = data_folder(cfg["data"])
    cards = {group: cfg[group] for group in ("data", "tokenizer", "prompt")}
    return LengthStore(cards, [out] if beside is None else [beside, out])
