"""Paired comparison of runs with a baseline: means with intervals, differences, and questions they disagree on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

import numpy as np

from mmrnn.evaluation.reports.statistics import (
    Estimate,
    discordance,
    image_clusters,
    is_significant,
    mean_with_interval,
    score_with_interval,
)

COLUMNS = [
    *("split or task", "run", "questions", "images", "mean [95 %]"),
    *("difference [95 %]", "wins : losses", "p", "verdict"),
]
BASELINE = "baseline"
INSIGNIFICANT = "no significant difference"


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """A reply to a question, with its score.

    Attributes:
        id: of the question; the replies of two runs are paired by it.
        question: as it was asked.
        truth: the reference.
        reply: of the model.
        score: by the metric; of right or wrong: 1 or 0.
        images: keys of its images; questions about the same image are resampled together.
        kind: of the question; a mean is the unweighted mean over kinds.
        same: texts that have to be equal in paired replies, beside the images.
        index: of the sample in its split.
    """

    id: str
    question: str
    truth: str
    reply: str
    score: float
    images: tuple[str, ...] = ()
    kind: str = ""
    same: tuple[str, ...] = ()
    index: int = 0


Pair = tuple[ScoredReply, ScoredReply]
Replies = Mapping[str, Sequence[ScoredReply]]


@dataclass
class Pairing:
    """Rows of the paired comparison (see `COLUMNS`), and by split or task and run the replies of different score."""

    rows: list[list[str]] = field(default_factory=list)
    disagreements: dict[tuple[str, str], list[Pair]] = field(default_factory=dict)


def pair(first: Sequence[ScoredReply], second: Sequence[ScoredReply], *, other_images: bool = False) -> list[Pair]:
    """Pair the replies of two runs by the id of the question; questions with one id are paired in their order.

    Args:
        first: replies of the baseline.
        second: replies of the other run.
        other_images: the same questions may show other images.

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
    changed = sum(a.same != b.same or (a.images != b.images and not other_images) for a, b in pairs)
    if changed:
        raise ValueError(f"{changed:,} of its {len(pairs):,} samples have another question, truth, kind or image")
    return pairs


def compare(runs: Mapping[str, Replies], baseline: str) -> Pairing:
    """Compare runs with one of them, split by split and task by task.

    Args:
        runs: replies by split or task, by the name of the run.
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


def _mean(answers: Sequence[ScoredReply]) -> list[str]:
    """Cells on one run alone: questions, images, mean."""
    clusters = image_clusters([answer.images for answer in answers])
    mean = score_with_interval(_scores(answers), [answer.kind for answer in answers], clusters)
    return [f"{len(answers):,}", f"{clusters.max() + 1:,}", _shown(mean, "{:.1%}")]


def _difference(first: Sequence[ScoredReply], second: Sequence[ScoredReply]) -> tuple[list[str], list[Pair]]:
    """Cells on the difference of a run from the baseline, and the pairs of different score."""
    try:
        pairs = pair(first, second)
    except ValueError as fault:
        return ["", "", "", f"not paired: {fault}"], []
    one, other = (_scores(answers) for answers in zip(*pairs, strict=True))
    firsts = [a for a, _ in pairs]
    clusters = image_clusters([answer.images for answer in firsts])
    difference = mean_with_interval(other - one, [answer.kind for answer in firsts], clusters)
    wins, losses, p = discordance(one, other)
    verdict = INSIGNIFICANT
    if is_significant(difference, p):
        verdict = "better" if difference.value > 0 else "worse"
    cells = [_shown(difference, "{:+.1%}"), f"{wins:,} : {losses:,}", "" if p is None else f"{p:.2g}", verdict]
    return cells, [(a, b) for a, b in pairs if a.score != b.score]


def _by_id(answers: Sequence[ScoredReply]) -> dict[tuple[str, int], ScoredReply]:
    if nameless := sum(not answer.id for answer in answers):
        raise ValueError(f"{nameless:,} of {len(answers):,} samples have no id")
    seen: Counter[str] = Counter()
    found = {}
    for answer in answers:
        found[answer.id, seen[answer.id]] = answer
        seen[answer.id] += 1
    return found


def _scores(answers: Sequence[ScoredReply]) -> np.ndarray:
    return np.array([answer.score for answer in answers], float)


def _shown(estimate: Estimate, form: str) -> str:
    """Text of an estimate."""
    show: Callable[[float], str] = form.format
    if isnan(estimate.low):
        return f"{show(estimate.value)} (one image: no interval)"
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"
