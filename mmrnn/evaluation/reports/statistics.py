"""Certainty of comparisons: intervals that keep questions about one image together, McNemar's test, spread of seeds."""

from collections.abc import Collection, Sequence
from statistics import NormalDist, fmean, stdev
from types import ModuleType
from typing import NamedTuple

import numpy as np

from mmrnn.evaluation.reports.resampling import (
    CONFIDENCE,
    EXTRA,
    RESAMPLES,
    WANTED_BY,
    batches,
    drawn,
    means_by_kind,
    over_kinds,
    student_quantile,
    sums_by_image,
)
from mmrnn.io.optional import require

ROUNDING = 1e-12
"""A difference of means that is no more than the rounding of their sums."""


class Estimate(NamedTuple):
    """A mean and the ends of its 95 % interval; NaN: one image alone gives no interval."""

    value: float
    low: float
    high: float


class Discordance(NamedTuple):
    """Questions that the second of two runs answers better, those that the first does, and McNemar's exact p.

    McNemar's test is about right and wrong: `p` is None where a score is neither 0 nor 1.
    """

    wins: int
    losses: int
    p: float | None


class Spread(NamedTuple):
    """Mean, standard deviation (of a sample), and the extremes of a figure over seeds."""

    mean: float
    deviation: float
    low: float
    high: float


def image_clusters(images: Sequence[Collection[str]]) -> np.ndarray:
    """Return a number for every question; questions that share an image, directly or by others, have the same.

    Args:
        images: keys of the images of every question; one without images stands for itself.
    """
    sparse = require("scipy.sparse", "scipy", wanted_by=WANTED_BY, extra=EXTRA)
    csgraph = require("scipy.sparse.csgraph", "scipy", wanted_by=WANTED_BY, extra=EXTRA)
    numbers: dict[str, int] = {}
    pairs = [(row, numbers.setdefault(key, len(numbers))) for row, keys in enumerate(images) for key in keys]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    size = len(images) + len(numbers)
    graph = sparse.coo_array((np.ones(len(pairs)), (rows, columns + len(images))), shape=(size, size))
    _, labels = csgraph.connected_components(graph, directed=False)
    return np.unique(labels[: len(images)], return_inverse=True)[1]


def mean_with_interval(
    values: np.ndarray, kinds: Sequence[str], clusters: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Return the unweighted mean over kinds of question and its 95 % interval over resampled images.

    The mean is linear in the values: their difference gives the paired difference of two runs.

    Args:
        values: of every question: right or wrong, or the difference of two runs.
        kinds: of every question.
        clusters: number of every question's image (`image_clusters`).
        seed: of the resampling.
        resamples: number of them.
    """
    sums, counts = sums_by_image(np.asarray(values, float)[None], kinds, clusters)
    images = len(counts)
    value = float(over_kinds(means_by_kind(np.ones((1, images)), sums, counts))[0, 0])
    if images < 2:
        return Estimate(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    found = [
        over_kinds(means_by_kind(drawn(rng, images, size), sums, counts))[:, 0]
        for size in batches(resamples, max(images, sums[0].size))
    ]
    beyond = (1 - _expanded(CONFIDENCE, images)) / 2
    return Estimate(value, *map(float, np.quantile(np.concatenate(found), [beyond, 1 - beyond])))


def score_with_interval(scores: np.ndarray, kinds: Sequence[str], clusters: np.ndarray) -> Estimate:
    """Return the mean of scores and its interval; arguments as of `mean_with_interval`.

    Where all are right, or all wrong, resamples cannot differ: it is Clopper and Pearson's (1934) over images.
    """
    images = int(clusters.max()) + 1
    if images < 2 or not (np.all(scores == 0) or np.all(scores == 1)):
        return mean_with_interval(scores, kinds, clusters)
    found = _stats().binomtest(images * int(scores[0]), images).proportion_ci(CONFIDENCE)
    return Estimate(float(scores[0]), float(found.low), float(found.high))


def discordance(first: np.ndarray, second: np.ndarray) -> Discordance:
    """Return wins and losses of the second run, and the two-sided p of McNemar's exact test.

    Args:
        first: score of every question by the first run.
        second: the same of the second run.
    """
    wins, losses = int((second > first).sum()), int((first > second).sum())
    if not np.isin([first, second], (0, 1)).all():
        return Discordance(wins, losses, None)
    p = _stats().binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    return Discordance(wins, losses, float(p))


def is_significant(difference: Estimate, p: float | None) -> bool:
    """Return True where the interval of a difference excludes 0 and McNemar's test, where there is one, rejects too.

    Both are asked: McNemar's test takes the questions about one image as independent, and the interval is too short
    where there are few images.
    """
    rejected = p is None or p < 1 - CONFIDENCE
    return rejected and (difference.low > ROUNDING or difference.high < -ROUNDING)


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of a figure over seeds, at least two of them."""
    return Spread(fmean(values), stdev(values), min(values), max(values))


def _expanded(confidence: float, clusters: int) -> float:
    """Level of a percentile interval that covers at `confidence` (Hesterberg 2015: "expanded percentile").

    Resamples of few clusters vary too little: their spread lacks a factor, and the quantile is that of Student's t.
    """
    quantile = student_quantile(confidence, clusters - 1) * (clusters / (clusters - 1)) ** 0.5
    return 2 * NormalDist().cdf(quantile) - 1


def _stats() -> ModuleType:
    return require("scipy.stats", "scipy", wanted_by=WANTED_BY, extra=EXTRA)
