"""Certainty of a comparison of runs: paired differences over images, and beside them the spread over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from mmrnn.config.tree import leaves
from mmrnn.evaluation.reports import pairing
from mmrnn.evaluation.reports.answer_file import read_answers
from mmrnn.evaluation.reports.comparison import UNTRAINED, FinishedRun, average, names
from mmrnn.evaluation.reports.disagreements import Disagreement, disagreements_html
from mmrnn.evaluation.reports.run_folder import NUMBER
from mmrnn.evaluation.reports.section import Section
from mmrnn.evaluation.reports.statistics import spread
from mmrnn.evaluation.reports.task_results import TaskResult, read_tasks, task_label
from mmrnn.evaluation.reports.thumbnails import Thumbnails

IMAGES = (
    "Mean score: of a split over its kinds of question, of a task over its questions. Intervals come from resampling "
    "images, with the questions about one image kept together: they say how far other images would move a figure, not "
    "how far another seed would. p is that of McNemar's exact test on right and wrong over all questions; replies with "
    "scores between have none, and the interval alone decides. A difference from the baseline is significant where its "
    "interval excludes 0 and p, where there is one, is below 0.05."
)
SEEDS = (
    "Runs that differ in their seed alone: how far training again moves the mean. It is no part of the intervals above."
)
PAPERS = "The figure that papers print. Questions not asked, and empty or overlong replies, are counted as wrong."
SPREAD_COLUMNS = ["runs", "split or task", "seeds", "mean", "standard deviation", "lowest", "highest"]
GUESSES = (
    "Held-out questions without the image, in the run that the others are compared with. Chance: a guess among the "
    "answers that a kind of question has; majority: the most frequent one; blind: the most frequent answer that "
    "training gave to the very same question."
)
GUESS_COLUMNS = ["split", "question", "chance", "majority", "blind"]
TASK_COLUMNS = ["task", "run", "questions", "counted as wrong", "figure", "departures"]
NO_REFERENCE = "no reference on disk"

Tasks = Mapping[str, TaskResult]


def certainty(runs: Sequence[FinishedRun], baseline: int = 0) -> list[Section]:
    """Return the sections on tasks, on paired differences and on the spread over seeds.

    Args:
        runs: that are compared; with one alone there is its interval, and no difference.
        baseline: number of the run, from 0, that the others are compared with.
    """
    named = names(runs)
    answers: dict[str, dict[str, list[pairing.ScoredReply]]] = {}
    tasks, notes = {}, []
    for name, run in zip(named, runs, strict=True):
        tasks[name], faults = read_tasks(run.folder)
        notes += [f"{name}: {fault}." for fault in faults]
        try:
            answers[name] = {} if run.result is UNTRAINED else read_answers(run.folder)
        except (OSError, ValueError) as fault:
            notes.append(f"{name}: its held-out questions have no interval and are not paired: {fault}.")
        scored = {task_label(task): result.replies for task, result in tasks[name].items() if result.replies}
        if scored:
            answers[name] = answers.get(name, {}) | scored
    rest = [*_guesses(runs[baseline]), *_figures(tasks), *_seeds(runs, [tasks[name] for name in named])]
    title = f"Differences from {named[baseline]}" if len(runs) > 1 else "Intervals"
    try:
        found = pairing.compare(answers, named[baseline])
    except ImportError as fault:
        return [Section(title, notes=[*notes, f"{fault}."]), *rest]
    labelled = {task_label(task): result for task, result in tasks[named[baseline]].items()}
    images = Thumbnails(runs[baseline].result["config"], labelled)
    differing = found.disagreements.items()
    more = disagreements_html(
        [Disagreement(split, name, pairing.BASELINE, name, pairs) for (split, name), pairs in differing], images
    )
    if images.faults:
        notes.append(f"{len(images.faults):,} disagreements are shown without their image; first {images.faults[0]}.")
    shown = [IMAGES, *notes] if found.rows else notes
    return [Section(title, pairing.COLUMNS, found.rows, shown, more), *rest]


def _guesses(run: FinishedRun) -> list[Section]:
    """Section on the accuracy without the image; none where the run says nothing of it."""
    rows = []
    for split, kinds in run.result["accuracy"].items():
        for kind, row in kinds.items():
            shares = [row.get(name) for name in GUESS_COLUMNS[2:]]
            if any(isinstance(share, NUMBER) for share in shares):
                rows.append([split, kind, *(f"{one:.1%}" if isinstance(one, NUMBER) else "" for one in shares)])
    return [Section("Without the image", GUESS_COLUMNS, rows, [GUESSES])] if rows else []


def _figures(tasks: Mapping[str, Tasks]) -> list[Section]:
    """Section on what papers print of the tasks; none where there are no tasks."""
    rows = []
    for task in dict.fromkeys(task for results in tasks.values() for task in results):
        for name, results in tasks.items():
            if result := results.get(task):
                counts = (f"{result.questions:,}", f"{result.skipped:,}")
                rows.append([task, name, *counts, result.figure or NO_REFERENCE, "; ".join(result.departures)])
    return [Section("Tasks", TASK_COLUMNS, rows, [PAPERS])] if rows else []


def _means(run: FinishedRun, tasks: Tasks) -> dict[str, float]:
    """Mean score by split and task."""
    splits = {split: share for split in run.result["accuracy"] if (share := average(run, split)) is not None}
    return splits | {
        task_label(task): fmean(reply.score for reply in result.replies)
        for task, result in tasks.items()
        if result.replies
    }


def _seeds(runs: Sequence[FinishedRun], tasks: Sequence[Tasks]) -> list[Section]:
    """Section on the spread over seeds; none where no two runs differ in their seed alone."""
    groups: dict[str, dict[str, tuple[FinishedRun, Tasks]]] = {}
    for run, results in zip(runs, tasks, strict=True):
        settings = {path: str(value) for path, value in leaves(run.result["config"]) if path != "seed"}
        group = groups.setdefault(repr([sorted(settings.items()), sorted(run.result["choices"].items())]), {})
        group.setdefault(str(run.result["config"].get("seed")), (run, results))
    labels = names([_seedless(next(iter(group.values()))[0]) for group in groups.values()])
    rows = []
    for label, group in zip(labels, groups.values(), strict=True):
        every = [_means(*one) for one in group.values()]
        for split in dict.fromkeys(split for means in every for split in means):
            found = [means[split] for means in every if split in means]
            if len(found) > 1:
                over = spread(found)
                figures = (f"{figure:.1%}" for figure in (over.mean, over.deviation, over.low, over.high))
                rows.append([label if len(groups) > 1 else "all", split, str(len(found)), *figures])
    return [Section("Spread over seeds", SPREAD_COLUMNS, rows, [SEEDS])] if rows else []


def _seedless(run: FinishedRun) -> FinishedRun:
    config = {name: value for name, value in run.result["config"].items() if name != "seed"}
    return replace(run, result={**run.result, "config": config})
