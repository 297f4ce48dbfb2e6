"""Bootstrap resamples of images, and of seeds, as weights; the mean over kinds of question under such weights."""

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
MAX_ELEMENTS = 2**22
"""Numbers that one batch of resamples may hold."""

MAX_FREEDOM = 1e4
"""Degrees of freedom from which on Student's t is the normal distribution."""

ANGLES = 20_001


def sums_by_image(values: np.ndarray, kinds: Sequence[str], clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of values (images, rows, kinds), and the numbers of questions (images, kinds).

    Args:
        values: of every row (a run, a pair of runs) and question.
        kinds: of every question; their order in the result is the sorted one.
        clusters: number of every question's image.
    """
    columns = np.unique(np.asarray(kinds), return_inverse=True)[1]
    shape = (int(clusters.max()) + 1, int(columns.max()) + 1)
    counts, sums = np.zeros(shape), np.zeros((*shape, len(values)))
    np.add.at(counts, (clusters, columns), 1)
    np.add.at(sums, (clusters, columns), np.asarray(values, float).T)
    return sums.transpose(0, 2, 1), counts


def drawn(rng: np.random.Generator, size: int, resamples: int) -> np.ndarray:
    """Return how often each of `size` units is drawn, for every resample (resamples, size)."""
    chosen = rng.integers(0, size, (resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(chosen.ravel(), minlength=resamples * size).reshape(resamples, size).astype(float)


def rescaled(weights: np.ndarray) -> np.ndarray:
    """Return weights of resamples whose variance is unbiased for few units (Rao and Wu 1988); one unit stays fixed."""
    size = weights.shape[1]
    return weights if size < 2 else 1 + (weights - 1) * (size / (size - 1)) ** 0.5


def means_by_kind(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of every kind (resamples, rows, kinds) under weights of images; NaN: a kind is not asked."""
    total = np.tensordot(weights, sums, axes=1)
    number = (weights @ counts)[:, None]
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def over_kinds(means: np.ndarray) -> np.ndarray:
    """Return the unweighted mean over kinds, the last axis; a kind that is not asked does not count."""
    asked = ~np.isnan(means)
    return np.where(asked, means, 0).sum(axis=-1) / np.maximum(asked.sum(axis=-1), 1)


def batches(resamples: int, elements: int) -> Iterator[int]:
    """Yield sizes of batches of resamples, of which each takes so many numbers."""
    most = max(1, MAX_ELEMENTS // elements)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def student_quantile(confidence: float, freedom: float) -> float:
    """Return the number that Student's t stays below in absolute value with a probability.

    With t = sqrt(freedom) tan(angle), the density of the angle is proportional to cos(angle) ** (freedom - 1).

    Args:
        confidence: the probability, below 1.
        freedom: degrees of freedom, 1 or more; need not be whole.
    """
    if freedom > MAX_FREEDOM:
        return NormalDist().inv_cdf((1 + confidence) / 2)
    angles = np.linspace(0, np.pi / 2, ANGLES)
    density = np.cos(angles) ** (freedom - 1)
    share = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(freedom**0.5 * np.tan(np.interp(confidence, share / share[-1], angles)))
