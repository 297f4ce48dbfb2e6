"""Answers in which two designs of a sweep differ most: the commonest reply of each, over its seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmrnn.config.overrides import override_text
from mmrnn.evaluation.reports.disagreements import Disagreement, disagreements_html
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.task_results import read_tasks, task_label
from mmrnn.evaluation.reports.thumbnails import Thumbnails
from mmrnn.evaluation.sweeps.contrasts import matched_runs
from mmrnn.evaluation.sweeps.scores import Scores


def differing_answers(split: str, contrasts: Sequence[Mapping[str, Any]], scores: Scores) -> tuple[str, list[str]]:
    """Return the questions on which two designs differ most as HTML, and the faults of images that cannot be shown.

    Two designs are those of a contrast, of a slope its two ends; without contrasts, the best and the worst of all.

    Args:
        split: or label of a task.
        contrasts: of the sweep.
        scores: on the split, with replies.
    """
    if not scores.replies:
        return "", []
    found = [one for contrast in contrasts if (one := _of_contrast(split, contrast, scores))]
    if not contrasts:
        found = _best_and_worst(split, scores)
    first = scores.runs[0]
    tasks = read_tasks(first.folder)[0] if first.folder else {}
    images = Thumbnails(first.result["config"], {task_label(name): task for name, task in tasks.items()})
    return disagreements_html(found, images), images.faults


def _of_contrast(split: str, contrast: Mapping[str, Any], scores: Scores) -> Disagreement | None:
    group = contrast["group"]
    options, seeds = [run.options for run in scores.runs], [run.seed for run in scores.runs]
    if contrast.get("slope"):
        known = sorted({one[group] for one in options if group in one}, key=float)
        against, option = known[0], known[-1]
    else:
        option, against = (override_text(contrast[name]) for name in ("option", "against"))
    found = matched_runs(options, seeds, group, {option, against}).values()
    if not found or option == against:
        return None
    names = f"{group}={against}", f"{group}={option}"
    return _differing(split, names, [one[against] for one in found], [one[option] for one in found], scores)


def _best_and_worst(split: str, scores: Scores) -> list[Disagreement]:
    means = scores.means()[:, 0]
    order = sorted(scores.designs().items(), key=lambda one: float(np.mean(means[one[1]])))
    (worst, first), (best, second) = order[0], order[-1]
    return [_differing(split, (best, worst), second, first, scores)] if len(order) > 1 else []


def _differing(
    split: str, names: tuple[str, str], first: Sequence[int], second: Sequence[int], scores: Scores
) -> Disagreement:
    """Questions that the runs of two designs answer with different mean scores."""
    shares = [scores.values[places].mean(axis=0) for places in (first, second)]
    pairs = [
        (_commonest(place, first, shares[0], scores), _commonest(place, second, shares[1], scores))
        for place in np.flatnonzero(shares[0] != shares[1]).tolist()
    ]
    return Disagreement(split, f"{names[1]} against {names[0]}", *names, pairs)


def _commonest(place: int, runs: Sequence[int], shares: np.ndarray, scores: Scores) -> ScoredReply:
    """Question with the commonest reply of some runs, and their mean score."""
    [(reply, times)] = Counter(scores.replies[run][place] for run in runs).most_common(1)
    return replace(scores.questions[place], reply=f"{reply} ({times} of {len(runs)} runs)", score=float(shares[place]))
