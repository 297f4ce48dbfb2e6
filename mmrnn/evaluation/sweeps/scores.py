"""Runs of a sweep, and their scores on the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmrnn.evaluation.blind_baselines import chance, majority
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.resampling import ImageResamples, resample_images
from mmrnn.evaluation.reports.seed_statistics import with_overall


@dataclass(frozen=True)
class SweepRun:
    """A finished job.

    Attributes:
        name: of the job.
        options: what the sweep crosses -> its option, without the seed.
        seed: of the run.
        result: `result.json`.
        log: records of training.
        folder: of the run; None: its results alone are stored.
    """

    name: str
    options: Mapping[str, str]
    seed: str
    result: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    folder: Path | None = None

    @property
    def design(self) -> str:
        """Options in words."""
        return " ".join(f"{key}={option}" for key, option in self.options.items()) or "all"


@dataclass(frozen=True)
class Scores:
    """Scores of the runs of a sweep on the questions of a split or task.

    Attributes:
        runs: that answered them.
        values: (runs, questions).
        kinds: of every question.
        clusters: number of every question's image.
        questions: of the first run, with its replies.
        replies: of every run to every question; none where results alone are stored.
        baselines: accuracy without the image by name (`chance`, `majority`, `blind`) and kind; none of a task.
        contrasts: that are asked for.
    """

    runs: Sequence[SweepRun]
    values: np.ndarray
    kinds: Sequence[str]
    clusters: np.ndarray
    questions: Sequence[ScoredReply] = ()
    replies: Sequence[Sequence[str]] = ()
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    contrasts: Sequence[Mapping[str, Any]] = ()

    def means(self) -> np.ndarray:
        """Return the mean over kinds of every run, and behind it the mean of every kind (runs, 1 + kinds)."""
        return with_overall(self.resampled.means)

    @cached_property
    def resampled(self) -> ImageResamples:
        """The runs under resamples of images, for all estimates."""
        return resample_images(self.values, self.kinds, self.clusters)

    def designs(self) -> dict[str, list[int]]:
        """Return the places of the runs of every design, in the order of the sweep."""
        found: dict[str, list[int]] = {}
        for place, run in enumerate(self.runs):
            found.setdefault(run.design, []).append(place)
        return found


def guesses(questions: Sequence[ScoredReply], blind: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the accuracies of replies without the image to held-out questions, by name and kind.

    Args:
        questions: with references.
        blind: accuracy of the most frequent answer that training gave to the same question, by kind.
    """
    answers: dict[str, list[str]] = {}
    for one in questions:
        answers.setdefault(one.kind, []).append(one.truth)
    found = {
        "chance": {kind: chance(one) for kind, one in answers.items()},
        "majority": {kind: majority(one)[1] for kind, one in answers.items()},
    }
    return {**found, "blind": dict(blind)} if blind.keys() >= answers.keys() else found
