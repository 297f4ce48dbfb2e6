"""Clusters of feature vectors, and the vectors that are nearest to the centre of each."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmrnn.io.optional import require

PASSES = 5
"""Times that k-means reads all vectors."""

LEAST_BATCH, BATCH_OF_CLUSTERS = 4096, 4
"""Vectors of a step of k-means: so many, or so many for each cluster."""

MOST_SEEKED = 1000
"""Clusters up to which the first centres are sought by k-means++; its time grows with their square."""

PIECE = 2**22
"""Numbers of a piece of the vectors, or of their distances to the centres, that is in memory at once."""


class Nearest(NamedTuple):
    """Vectors that are nearest to their centres.

    Attributes:
        rows: of the vectors, in order.
        clusters: number of clusters that have a vector.
    """

    rows: Int[np.ndarray, " n"]
    clusters: int


def nearest_to_centres(
    features: Float[np.ndarray, "m e"], rows: Int[np.ndarray, " k"], *, clusters: int, nearest: int, seed: int
) -> Nearest:
    """Cluster vectors by k-means in small batches, and return those nearest to each centre.

    In memory are the centres, a batch of 4 vectors a cluster (at least 4,096), and 40 bytes a vector. The same
    vectors and seed give the same result.

    Args:
        features: may be mapped from a file.
        rows: of the vectors that count, in rising order.
        clusters: number of clusters, at most that of the vectors.
        nearest: most vectors of a cluster.
        seed: of the first centres and the order of the vectors.

    Raises:
        ValueError: there are fewer vectors than clusters.
        ImportError: scikit-learn is not installed.
    """
    if len(rows) < clusters:
        raise ValueError(f"{clusters:,} clusters need as many images, and {len(rows):,} have features; take fewer")
    centres = _centres(features, rows, clusters, seed)
    labels, distances = _assign(features, rows, centres)
    order = np.lexsort((rows, distances, labels))
    ordered = labels[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return Nearest(np.sort(rows[order[place < nearest]]), len(starts))


def _centres(features: np.ndarray, rows: np.ndarray, clusters: int, seed: int) -> Float[np.ndarray, "k e"]:
    cluster = require("sklearn.cluster", "scikit-learn", wanted_by="selection", extra="curation")
    first = "k-means++" if clusters <= MOST_SEEKED else "random"
    kmeans: Any = cluster.MiniBatchKMeans(clusters, init=first, random_state=seed, n_init=1)
    size = max(LEAST_BATCH, BATCH_OF_CLUSTERS * clusters)
    generator = np.random.default_rng(seed)
    for _ in range(PASSES):
        shuffled = generator.permutation(rows)
        # Batches of about one size: the first one has to hold as many vectors as there are clusters.
        for batch in np.array_split(shuffled, max(1, len(rows) // size)):
            kmeans.partial_fit(features[np.sort(batch)].astype(np.float32))
    return kmeans.cluster_centers_.astype(np.float32)


def _assign(features: np.ndarray, rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cluster of every vector, and half its squared distance to the centre, up to a constant of the vector."""
    labels, distances = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    offsets, step = (centres**2).sum(1) / 2, max(1, PIECE // max(centres.shape))
    for start in range(0, len(rows), step):
        some = features[rows[start : start + step]].astype(np.float32)
        scores = offsets - some @ centres.T
        found = scores.argmin(1)
        labels[start : start + step] = found
        distances[start : start + step] = scores[np.arange(len(found)), found] + (some**2).sum(1) / 2
    return labels, distances
