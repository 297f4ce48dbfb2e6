"""Bootstrap resamples of images, and of seeds, as weights; the mean over kinds of question under such weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmrnn.io.optional import require

WANTED_BY, EXTRA = "an interval", "stats"

RESAMPLES = 10_000
CONFIDENCE = 0.95
MAX_ELEMENTS = 2**22
"""Numbers that one batch of resamples may hold."""


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
    """Return weights of resamples whose variance is unbiased for few units (Rao and Wu 1988), two at least.

    They are for sums: a weight may be negative, and a mean under such weights may be anything.
    """
    size = weights.shape[1]
    return 1 + (weights - 1) * (size / (size - 1)) ** 0.5


def means_by_kind(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of every kind (resamples, rows, kinds) under weights of images; NaN: a kind is not asked."""
    total = np.tensordot(weights, sums, axes=1)
    number = (weights @ counts)[:, None]
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


@dataclass(frozen=True)
class ImageResamples:
    """Means of some runs, and those under resamples of images; of sums and differences of runs they are the same ones.

    Attributes:
        kinds: of question.
        counts: number of questions (images, kinds).
        means: of all questions (runs, kinds).
        drawn: means in each resample (resamples, runs, kinds); none of one image.
    """

    kinds: Sequence[str]
    counts: np.ndarray
    means: np.ndarray
    drawn: np.ndarray


def resample_images(
    values: np.ndarray, kinds: Sequence[str], clusters: np.ndarray, resamples: int = RESAMPLES
) -> ImageResamples:
    """Draw resamples of images, each with all of its questions, the same ones for all runs.

    Args:
        values: of every run and question.
        kinds: of every question.
        clusters: number of every question's image.
        resamples: number of them.
    """
    sums, counts = sums_by_image(values, kinds, clusters)
    images, rng = len(counts), np.random.default_rng(0)
    sizes = batches(resamples, max(images, sums[0].size)) if images > 1 else ()
    found = [means_by_kind(drawn(rng, images, size), sums, counts) for size in sizes]
    means = means_by_kind(np.ones((1, images)), sums, counts)[0]
    names = [*map(str, np.unique(np.asarray(kinds)))]
    return ImageResamples(names, counts, means, np.concatenate(found) if found else np.empty((0, *means.shape)))


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

    Args:
        confidence: the probability, below 1.
        freedom: degrees of freedom; need not be whole.
    """
    special = require("scipy.special", "scipy", wanted_by=WANTED_BY, extra=EXTRA)
    return float(special.stdtrit(freedom, (1 + confidence) / 2))
