"""Certainty over seeds and images: intervals by a hierarchical bootstrap, the exact sign-flip test, Holm's correction.

Runs with several seeds are asked the same questions, so that seeds and images are crossed. Seeds are resampled, images
are (with all of their questions, the same ones for every seed), and both are at once (Owen 2007). A resample of both
moves by what the seed moves it, by what the images move it, and by a rest that belongs to their combination:

    variance = variance(seeds) + variance(images) - variance(rest)

where the rest, the luck of one seed with one image, is part of both terms before it and would count twice; the variance
is no less than that of the rest.
"""

from collections.abc import Mapping, Sequence
from math import isnan, sqrt
from typing import NamedTuple

import numpy as np

from mmrnn.evaluation.reports.resampling import (
    CONFIDENCE,
    ImageResamples,
    batches,
    drawn,
    over_kinds,
    rescaled,
    student_quantile,
)
from mmrnn.evaluation.reports.statistics import ROUNDING, Estimate

POWER = 0.8
MAX_EXACT = 20
"""Seed pairs whose sign flips are all counted (a million); of more, as many are drawn."""


class SeedEstimate(NamedTuple):
    """A mean over seeds and images.

    Attributes:
        value: of all runs and questions.
        low: end of its 95 % interval; NaN: one seed of a design alone, or one image, gives none.
        high: the other end.
        error: standard error; NaN likewise.
        freedom: degrees of freedom of Student's t; NaN likewise.
    """

    value: float
    low: float
    high: float
    error: float
    freedom: float

    @property
    def interval(self) -> Estimate:
        """The value and its interval alone."""
        return Estimate(*self[:3])


class SeedEstimates(NamedTuple):
    """Estimates of the mean over kinds of question, and of every kind."""

    mean: SeedEstimate
    kinds: Mapping[str, SeedEstimate]


def of_combinations(runs: ImageResamples, weights: np.ndarray, groups: Sequence[int] | None = None) -> SeedEstimates:
    """Return the mean of sums of runs, such as the differences of pairs, with its interval over seeds and images.

    All groups of sums weigh the same, and so do the sums in a group.

    Args:
        runs: resampled.
        weights: of every run in each sum (sums, runs).
        groups: of every sum; seeds are resampled within a group, such as one of the backbones that are averaged over.
    """
    groups = np.unique(np.zeros(len(weights)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(groups)
    shares = 1 / (len(sizes) * sizes[groups])
    images, means = len(runs.counts), weights @ runs.means
    mean = with_overall(shares @ means)
    if sizes.min() < 2 or images < 2:
        found = [_without_interval(value) for value in mean]
        return SeedEstimates(found[0], dict(zip(runs.kinds, found[1:], strict=True)))
    moved = _moves(runs, weights, groups, shares) - mean
    rest = moved[2] - moved[0] - moved[1]
    variances = np.nanmean([moved[0] ** 2, moved[1] ** 2, rest**2], axis=1)  # sources, columns
    # For few images: weights that are rescaled as those of seeds may be negative, and so may the total of a kind.
    variances[1:] *= images / (images - 1)
    asked = [images, *(runs.counts > 0).sum(axis=0)]
    found = [
        _estimate(float(value), *map(float, column), len(groups) - len(sizes), int(number) - 1)
        for value, column, number in zip(mean, variances.T, asked, strict=True)
    ]
    return SeedEstimates(found[0], dict(zip(runs.kinds, found[1:], strict=True)))


def with_overall(kinds: np.ndarray) -> np.ndarray:
    """Return means of kinds, the last axis, behind their unweighted mean."""
    return np.concatenate([over_kinds(kinds)[..., None], kinds], axis=-1)


def _moves(runs: ImageResamples, weights: np.ndarray, groups: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Means (sources, resamples, columns) where seeds, images, and both are resampled; columns: mean, then kinds."""
    resamples, rng = len(runs.drawn), np.random.default_rng(1)  # other draws than those of images
    seeds = np.empty((resamples, len(groups)))
    for group in range(int(groups.max()) + 1):
        inside = np.flatnonzero(groups == group)
        seeds[:, inside] = rescaled(drawn(rng, len(inside), resamples))
    seeds *= shares
    used = np.flatnonzero(weights.any(axis=0))
    both = (seeds @ weights[:, used])[:, None] @ runs.drawn[:, used]  # resamples, 1, kinds
    by_images = (shares @ weights[:, used]) @ runs.drawn[:, used]
    return with_overall(np.stack([seeds @ (weights @ runs.means), by_images, both[:, 0]]))


def _estimate(value: float, seeds: float, images: float, rest: float, of_seeds: int, of_images: int) -> SeedEstimate:
    """Interval by Student's t with the bootstrap's variance and Satterthwaite's degrees of freedom."""
    if not of_images:
        return _without_interval(value)
    variance = max(seeds + images - rest, rest)
    if variance <= ROUNDING**2:
        return SeedEstimate(value, value, value, 0.0, float(of_seeds))
    parts = seeds**2 / of_seeds + images**2 / of_images + rest**2 / (of_seeds * of_images)
    freedom = max(variance**2 / parts, 1.0)
    far = student_quantile(CONFIDENCE, freedom) * sqrt(variance)
    return SeedEstimate(value, value - far, value + far, sqrt(variance), freedom)


def _without_interval(value: float) -> SeedEstimate:
    return SeedEstimate(float(value), *[float("nan")] * 4)


def smallest_difference(estimate: SeedEstimate) -> float:
    """Return the difference that a study like this one shows with 80 % power at 5 % error; NaN: it has no interval."""
    if isnan(estimate.error):
        return float("nan")
    quantiles = (student_quantile(level, estimate.freedom) for level in (CONFIDENCE, 2 * POWER - 1))
    return sum(quantiles) * estimate.error


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p of the sign-flip test: the share of sign patterns whose sum is as far from 0 or farther.

    Were two designs equal, each difference of a seed pair would as well have the other sign. All patterns are counted
    for up to `MAX_EXACT` pairs. The smallest p of n pairs is 2 / 2**n.

    Args:
        differences: of every seed pair, times its weight.
    """
    differences = np.asarray(differences, float)
    far = abs(differences.sum()) - ROUNDING
    if len(differences) <= MAX_EXACT:
        sums = np.zeros(1)
        for difference in differences:
            sums = np.concatenate([sums + difference, sums - difference])
        return float(np.mean(np.abs(sums) >= far))
    rng = np.random.default_rng(0)
    hits = 0
    for size in batches(2**MAX_EXACT, len(differences)):
        signs = 2.0 * rng.integers(0, 2, (size, len(differences))) - 1
        hits += int((np.abs(signs @ differences) >= far).sum())
    return (hits + 1) / (2**MAX_EXACT + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in their order."""
    found = [0.0] * len(ps)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda one: ps[one])):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        found[index] = largest
    return found
