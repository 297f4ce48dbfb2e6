"""Finished jobs of a sweep by design: runs that differ in their seed alone, with scores of the same questions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mmrnn.config.overrides import override_key
from mmrnn.config.sweep import SEED
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.conditions import base_split
from mmrnn.evaluation.reports.answer_file import read_answers
from mmrnn.evaluation.reports.pairing import Replies, pair
from mmrnn.evaluation.reports.run_folder import read_log, read_result
from mmrnn.evaluation.reports.statistics import image_clusters
from mmrnn.evaluation.reports.task_results import read_tasks, task_label
from mmrnn.evaluation.sweeps.by_condition import Entry, by_split, contrasts_of
from mmrnn.evaluation.sweeps.job_status import JobStatus, job_states
from mmrnn.evaluation.sweeps.scores import Scores, SweepRun, guesses


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
    for split, entries in by_split(found.runs, replies).items():
        found.scores[split] = _aligned(split, entries, found)
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


def _aligned(split: str, entries: Sequence[Entry], fold: Fold) -> Scores:
    """Scores in the order of the questions of the first run; runs that were asked others are left out, with a note.

    Where the sweep crosses the data, its runs may be shown other images with the same questions.
    """
    [(baseline, first), *_] = entries
    other_images = any(key.partition(".")[0] == "data" for key in fold.plan.grid)
    kept, values, texts = [], [], []
    for run, replies in entries:
        try:
            pairs = pair(first, replies, other_images=other_images)
        except ValueError as fault:
            fold.notes.append(
                f"{split}: {run.name} ({run.design}) is left out, {baseline.name} is the baseline: {fault}."
            )
            continue
        kept.append(run)
        values.append([other.score for _, other in pairs])
        texts.append([other.reply for _, other in pairs])
    clusters = image_clusters([one.images for one in first]) if kept else np.zeros(0, int)
    kinds = kept[0].result["accuracy"].get(base_split(split)) if kept else None
    blind = {kind: row["blind"] for kind, row in (kinds or {}).items() if isinstance(row.get("blind"), int | float)}
    baselines = guesses(first, blind) if kinds else {}
    found = np.array(values, float)
    asked = contrasts_of(split, kept, fold.plan)
    return Scores(kept, found, [one.kind for one in first], clusters, [*first], texts, baselines, asked)
