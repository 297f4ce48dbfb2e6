"""Finished jobs of a sweep by design: runs that differ in their seed alone, with scores of the same questions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmrnn.config.overrides import override_key
from mmrnn.config.sweep import SEED
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.blind_baselines import chance, majority
from mmrnn.evaluation.reports.answer_file import read_answers
from mmrnn.evaluation.reports.pairing import Replies, ScoredReply, pair
from mmrnn.evaluation.reports.resampling import ImageResamples, resample_images
from mmrnn.evaluation.reports.run_folder import read_log, read_result
from mmrnn.evaluation.reports.seed_statistics import with_overall
from mmrnn.evaluation.reports.statistics import image_clusters
from mmrnn.evaluation.reports.task_results import read_tasks, task_label
from mmrnn.evaluation.sweeps.job_status import JobStatus, job_states


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
    """

    runs: Sequence[SweepRun]
    values: np.ndarray
    kinds: Sequence[str]
    clusters: np.ndarray
    questions: Sequence[ScoredReply] = ()
    replies: Sequence[Sequence[str]] = ()
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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


@dataclass
class Fold:
    """A sweep as its report shows it.

    Attributes:
        plan: of the sweep.
        runs: its finished jobs.
        scores: by split or task; none where no design has a second seed.
        notes: sentences about what is missing.
    """

    plan: SweepPlan
    runs: list[SweepRun] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def has_seeds(self) -> bool:
        """True where a design has several seeds."""
        return any(len(places) > 1 for scores in self.scores.values() for places in scores.designs().values())


def fold_sweep(folder: Path, plan: SweepPlan, *, single: bool = False) -> Fold:
    """Read the finished jobs of a sweep; a file that is missing or damaged is named in a note.

    Answers are read where a design has a second seed.

    Args:
        folder: of the sweep.
        plan: of the sweep.
        single: read answers also where no design has a second seed.

    Raises:
        ValueError: the note of a job is damaged.
        ImportError: scipy is not installed.
    """
    found, replies = Fold(plan), {}
    states = [*job_states(folder, plan)]
    counts = Counter(one.state for one in states)
    found.notes.append(f"Jobs: {', '.join(f'{number:,} {state}' for state, number in counts.items())}.")
    runs: list[tuple[JobStatus, SweepRun]] = []
    for job in states:
        try:
            runs += [(job, _run(job, plan))] if job.state == "finished" else []
        except (OSError, ValueError) as fault:
            found.notes.append(f"{job} is left out: {fault}.")
    if not single and max(Counter(run.design for _, run in runs).values(), default=0) < 2:
        return replace(found, runs=[run for _, run in runs])
    for job, run in runs:
        try:
            replies[run.name], faults = _answers(job.result)
        except (OSError, ValueError) as fault:
            found.notes.append(f"{job} is left out: {fault}.")
            continue
        found.runs.append(run)
        found.notes += [f"{job}: {fault}." for fault in faults]
    for split in dict.fromkeys(split for answers in replies.values() for split in answers):
        found.scores[split] = _aligned(split, found, replies)
    return found


def _run(job: JobStatus, plan: SweepPlan) -> SweepRun:
    result = read_result(job.result)
    options, seed = options_and_seed(job.overrides, plan)
    seed = seed or str(result["config"].get(SEED, ""))
    return SweepRun(job.name, options, seed, result, read_log(job.result), job.result)


def options_and_seed(overrides: Sequence[str], plan: SweepPlan) -> tuple[dict[str, str], str]:
    """Return the options of a job in what its sweep crosses, and its seed; "": its overrides name none."""
    given = {override_key(word): word.partition("=")[2] for word in overrides}
    crossed = [key for key in plan.grid if key != SEED] or [key for key in given if key != SEED]
    return {key: given[key] for key in crossed if key in given}, given.get(SEED, "")


def _answers(folder: Path) -> tuple[Replies, list[str]]:
    """Replies by split, and by task, and the faults of tasks that cannot be read."""
    tasks, faults = read_tasks(folder)
    scored = {task_label(name): task.replies for name, task in tasks.items() if task.replies}
    return {**read_answers(folder), **scored}, faults


def _aligned(split: str, fold: Fold, replies: Mapping[str, Replies]) -> Scores:
    """Scores in the order of the questions of the first run; runs that were asked others are left out, with a note.

    Where the sweep crosses the data, its runs may be shown other images with the same questions.
    """
    runs = [run for run in fold.runs if split in replies[run.name]]
    first = replies[runs[0].name][split]
    other_images = any(key.partition(".")[0] == "data" for key in fold.plan.grid)
    kept, values, texts = [], [], []
    for run in runs:
        try:
            pairs = pair(first, replies[run.name][split], other_images=other_images)
        except ValueError as fault:
            fold.notes.append(
                f"{split}: {run.name} ({run.design}) is left out, {runs[0].name} is the baseline: {fault}."
            )
            continue
        kept.append(run)
        values.append([other.score for _, other in pairs])
        texts.append([other.reply for _, other in pairs])
    clusters = image_clusters([one.images for one in first]) if kept else np.zeros(0, int)
    kinds = kept[0].result["accuracy"].get(split) if kept else None
    blind = {kind: row["blind"] for kind, row in (kinds or {}).items() if isinstance(row.get("blind"), int | float)}
    baselines = guesses(first, blind) if kinds else {}
    return Scores(kept, np.array(values, float), [one.kind for one in first], clusters, [*first], texts, baselines)


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
