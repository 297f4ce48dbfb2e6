"""Certainty of a comparison of runs: paired differences over images, and beside them the spread over seeds."""

from collections.abc import Sequence
from dataclasses import replace

from mmrnn.config.tree import leaves
from mmrnn.evaluation.reports import pairing
from mmrnn.evaluation.reports.answer_file import read_answers
from mmrnn.evaluation.reports.comparison import FinishedRun, average, names
from mmrnn.evaluation.reports.section import Section
from mmrnn.evaluation.reports.statistics import spread

IMAGES = (
    "Mean over the kinds of question. Intervals come from resampling images, with the questions about one image kept "
    "together: they say how far other images would move a figure, not how far another seed would. p is that of "
    "McNemar's exact test on right and wrong over all questions. A difference "
    "from the baseline is significant where its interval excludes 0 and p is below 0.05."
)
SEEDS = (
    "Runs that differ in their seed alone: how far training again moves the mean. It is no part of the intervals above."
)
SPREAD_COLUMNS = ["runs", "split", "seeds", "mean", "standard deviation", "lowest", "highest"]


def certainty(runs: Sequence[FinishedRun], baseline: int = 0) -> list[Section]:
    """Return the sections on paired differences and on the spread over seeds.

    Args:
        runs: that are compared; with one alone there is its interval, and no difference.
        baseline: number of the run, from 0, that the others are compared with.
    """
    named = names(runs)
    answers, notes = {}, []
    for name, run in zip(named, runs, strict=True):
        try:
            answers[name] = read_answers(run.folder)
        except (OSError, ValueError) as fault:
            notes.append(f"{name} has no interval and is not paired: {fault}.")
    title = f"Differences from {named[baseline]}" if len(runs) > 1 else "Intervals"
    try:
        found = pairing.compare(answers, named[baseline])
    except ImportError as fault:
        return [Section(title, notes=[*notes, f"{fault}."]), *_seeds(runs)]
    shown = [IMAGES, *notes] if found.rows else notes
    return [Section(title, pairing.COLUMNS, found.rows, shown, pairing.disagreements_html(found)), *_seeds(runs)]


def _seeds(runs: Sequence[FinishedRun]) -> list[Section]:
    """Section on the spread over seeds; none where no two runs differ in their seed alone."""
    groups: dict[str, dict[str, FinishedRun]] = {}
    for run in runs:
        settings = {path: str(value) for path, value in leaves(run.result["config"]) if path != "seed"}
        group = groups.setdefault(repr([sorted(settings.items()), sorted(run.result["choices"].items())]), {})
        group.setdefault(str(run.result["config"].get("seed")), run)
    seeded = [[*group.values()] for group in groups.values() if len(group) > 1]
    firsts = [next(iter(group.values())) for group in groups.values()]
    labels = dict(zip((run.folder for run in firsts), names([_seedless(run) for run in firsts]), strict=True))
    rows = []
    for group in seeded:
        for split in dict.fromkeys(split for run in group for split in run.result["accuracy"]):
            means = [share for run in group if (share := average(run, split)) is not None]
            if len(means) > 1:
                over = spread(means)
                figures = (over.mean, over.deviation, over.low, over.high)
                label = labels[group[0].folder] if len(groups) > 1 else "all"
                rows.append([label, split, str(len(means)), *(f"{figure:.1%}" for figure in figures)])
    return [Section("Spread over seeds", SPREAD_COLUMNS, rows, [SEEDS])] if rows else []


def _seedless(run: FinishedRun) -> FinishedRun:
    config = {name: value for name, value in run.result["config"].items() if name != "seed"}
    return replace(run, result={**run.result, "config": config})
