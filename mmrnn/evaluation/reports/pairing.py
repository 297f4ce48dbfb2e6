"""Paired comparison of runs with a baseline: means with intervals, differences, and questions they disagree on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import isnan

import numpy as np

from mmrnn.evaluation.accuracy import Answer
from mmrnn.evaluation.reports.statistics import (
    Estimate,
    discordance,
    image_clusters,
    is_significant,
    mean_with_interval,
)

MAX_DISAGREEMENTS = 8
"""Most questions of each split and run that the page shows, of those that one run alone gets right."""

COLUMNS = [
    *("split", "run", "questions", "images", "mean [95 %]"),
    *("difference [95 %]", "wins : losses", "p", "verdict"),
]
BASELINE = "baseline"
INSIGNIFICANT = "no significant difference"

Pair = tuple[Answer, Answer]
Answers = Mapping[str, Sequence[Answer]]


@dataclass
class Pairing:
    """Rows of the paired comparison (see `COLUMNS`), and by split and run the questions that one alone gets right."""

    rows: list[list[str]] = field(default_factory=list)
    disagreements: dict[tuple[str, str], list[Pair]] = field(default_factory=dict)


def pair(first: Sequence[Answer], second: Sequence[Answer]) -> list[Pair]:
    """Pair the answers of two runs by the id of the sample; samples with one id are paired in their order.

    Raises:
        ValueError: the runs answer other samples, or other questions under the same ids.
    """
    if not first:
        raise ValueError("the baseline has no answers with ids here")
    one, other = _by_id(first), _by_id(second)
    both = one.keys() & other.keys()
    if len(both) < max(len(one), len(other)):
        raise ValueError(f"its {len(other):,} samples and the {len(one):,} of the baseline share {len(both):,} ids")
    pairs = [(answer, other[key]) for key, answer in one.items()]
    changed = sum((a.kind, a.question, a.truth, a.images) != (b.kind, b.question, b.truth, b.images) for a, b in pairs)
    if changed:
        raise ValueError(f"{changed:,} of its {len(pairs):,} samples have another question, truth, kind or image")
    return pairs


def compare(runs: Mapping[str, Answers], baseline: str) -> Pairing:
    """Compare runs with one of them, split by split.

    Args:
        runs: answers by the name of the run.
        baseline: name of the run that the others are compared with; where it is not among `runs`, nothing is paired.
    """
    found = Pairing()
    for split in dict.fromkeys(split for answers in runs.values() for split in answers):
        first = runs.get(baseline, {}).get(split, ())
        for name, answers in runs.items():
            if second := answers.get(split):
                rest = ["", "", "", BASELINE]
                if name != baseline:
                    rest, found.disagreements[split, name] = _difference(first, second)
                found.rows.append([split, name, *_mean(second), *rest])
    return found


def _mean(answers: Sequence[Answer]) -> list[str]:
    """Cells on one run alone: questions, images, mean."""
    clusters = image_clusters([answer.images for answer in answers])
    mean = mean_with_interval(_right(answers), [answer.kind for answer in answers], clusters)
    return [f"{len(answers):,}", f"{clusters.max() + 1:,}", _shown(mean, "{:.1%}")]


def _difference(first: Sequence[Answer], second: Sequence[Answer]) -> tuple[list[str], list[Pair]]:
    """Cells on the difference of a run from the baseline, and the pairs of which one alone is right."""
    try:
        pairs = pair(first, second)
    except ValueError as fault:
        return ["", "", "", f"not paired: {fault}"], []
    one, other = (_right(answers) for answers in zip(*pairs, strict=True))
    firsts = [a for a, _ in pairs]
    clusters = image_clusters([answer.images for answer in firsts])
    difference = mean_with_interval(other.astype(int) - one, [answer.kind for answer in firsts], clusters)
    wins, losses, p = discordance(one, other)
    verdict = INSIGNIFICANT
    if is_significant(difference, p):
        verdict = "better" if difference.value > 0 else "worse"
    cells = [_shown(difference, "{:+.1%}"), f"{wins:,} : {losses:,}", f"{p:.2g}", verdict]
    return cells, [(a, b) for a, b in pairs if a.right != b.right]


def disagreements_html(found: Pairing) -> str:
    """Return the questions that one of two runs alone gets right as HTML, those that the baseline does first."""
    parts = []
    for (split, name), pairs in found.disagreements.items():
        shown = sorted(pairs, key=lambda pair: pair[1].right)[:MAX_DISAGREEMENTS]
        if shown:
            cells = ("image", "question", "truth", BASELINE, name)
            head = "".join(f"<th>{escape(cell)}" for cell in cells)
            body = "".join(f"<tr>{_cells(a, b)}</tr>" for a, b in shown)
            title = f"{split}: {name}, {len(shown):,} of {len(pairs):,} disagreements"
            parts.append(f"<h3>{escape(title)}</h3><table><tr>{head}</tr>{body}</table>")
    return f"<h2>Disagreements</h2>{''.join(parts)}" if parts else ""


def _cells(a: Answer, b: Answer) -> str:
    texts = [", ".join(a.images), a.question, a.truth]
    replies = ((answer.reply or "(nothing)", "right" if answer.right else "wrong") for answer in (a, b))
    cells = [f"<td>{escape(text)}" for text in texts]
    return "".join([*cells, *(f"<td class={mark}>{escape(reply)}" for reply, mark in replies)])


def _by_id(answers: Sequence[Answer]) -> dict[tuple[str, int], Answer]:
    if nameless := sum(not answer.id for answer in answers):
        raise ValueError(f"{nameless:,} of {len(answers):,} samples have no id")
    seen: Counter[str] = Counter()
    found = {}
    for answer in answers:
        found[answer.id, seen[answer.id]] = answer
        seen[answer.id] += 1
    return found


def _right(answers: Sequence[Answer]) -> np.ndarray:
    return np.array([answer.right for answer in answers])


def _shown(estimate: Estimate, form: str) -> str:
    """Text of an estimate."""
    show: Callable[[float], str] = form.format
    if isnan(estimate.low):
        return f"{show(estimate.value)} (one image: no interval)"
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"
