"""Accuracy of designs as a share of that of a reference with the same seeds, such as the teachers of students."""

from collections.abc import Collection, Mapping
from math import sqrt

import numpy as np

from mmrnn.evaluation.reports.resampling import CONFIDENCE, student_quantile
from mmrnn.evaluation.reports.section import markdown_table
from mmrnn.evaluation.sweeps.scores import Scores


def share_table(found: Mapping[str, Scores], reference: Mapping[str, Scores], design: str) -> str:
    """Return the share of every design on each split that both have, with a 95 % interval over seeds.

    The share of a seed is its mean over kinds divided by that of the reference with this seed, on the questions that
    both were asked; a seed that the reference lacks is left out.

    Args:
        found: scores of the designs, by split.
        reference: scores of the sweep that has the reference, by split.
        design: the reference, by the name that its sweep gives it.

    Raises:
        ValueError: the sweep has no such design, or they have no question of a split in common.
    """
    known = dict.fromkeys(name for scores in reference.values() for name in scores.designs())
    if design not in known:
        raise ValueError(f"there is no design {design!r}; there are {', '.join(known)}")
    splits = [split for split, scores in reference.items() if split in found and design in scores.designs()]
    shares = {split: _shares(found[split], reference[split], design) for split in splits}
    names = dict.fromkeys(name for one in shares.values() for name in one)
    rows = [[name, *(_text(one.get(name, ())) for one in shares.values())] for name in names]
    return markdown_table([f"share of {design} [95 %]", *shares], rows)


def _shares(scores: Scores, reference: Scores, design: str) -> dict[str, list[float]]:
    """Share of every seed of every design, on the questions that both sweeps asked."""
    common = {one.id for one in scores.questions} & {one.id for one in reference.questions}
    if not common:
        raise ValueError(f"the runs of {design!r} were asked other questions")
    base, own = _means(reference, common), _means(scores, common)
    of_seed = {reference.runs[place].seed: base[place] for place in reference.designs()[design]}
    return {
        name: [own[place] / of_seed[seed] for place in places if (seed := scores.runs[place].seed) in of_seed]
        for name, places in scores.designs().items()
    }


def _means(scores: Scores, ids: Collection[str]) -> np.ndarray:
    """Mean over kinds of every run on some of the questions (runs,)."""
    kept = [one.id in ids for one in scores.questions]
    values, kinds = scores.values[:, kept], np.array(scores.kinds)[kept]
    return np.mean([values[:, kinds == kind].mean(1) for kind in np.unique(kinds)], 0)


def _text(shares: list[float]) -> str:
    if not shares:
        return ""
    mean = float(np.mean(shares))
    if len(shares) < 2:
        return f"{mean:.0%}"
    half = student_quantile(CONFIDENCE, len(shares) - 1) * float(np.std(shares, ddof=1)) / sqrt(len(shares))
    return f"{mean:.0%} [{mean - half:.0%}, {mean + half:.0%}]"
