"""Recall of image-text retrieval, from similarities that are computed in chunks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmrnn.inference.embedding import similarity

CUTS = (1, 5, 10)
"""The k of recall@k that papers print."""

TIE = 1e-6
"""Difference of two cosines of fp32 that may be rounding."""

ELEMENTS = 2**24
"""Similarities that are in memory at once."""

NEVER = 2**62
"""Rank of a query that finds nothing."""


class Retrieved(NamedTuple):
    """Results of the queries of one direction.

    Attributes:
        ranks: number of other candidates that are at least as near as the best right one; `NEVER`: the query has none.
        nearest: number of the nearest candidate.
    """

    ranks: Int[Tensor, " n"]
    nearest: Int[Tensor, " n"]


def retrieve(
    images: Float[Tensor, "n q w"], texts: Float[Tensor, "m p w"], owners: Int[Tensor, " m"]
) -> tuple[Retrieved, Retrieved]:
    """Return what each image finds among all texts, and each text among all images.

    A tie counts against the right candidate, so that a model whose vectors are all equal finds nothing.

    Args:
        images: at least one.
        texts: at least one.
        owners: number of the image that each text belongs to; -1: it belongs to none of them, and only misleads.
    """
    own_score = _own_scores(images, texts, owners)
    best_own = torch.full((len(images),), -torch.inf)
    owned = owners >= 0
    best_own.scatter_reduce_(0, owners[owned], own_score[owned], "amax")
    of_images = Retrieved(torch.zeros(len(images), dtype=torch.long), torch.zeros(len(images), dtype=torch.long))
    of_texts = Retrieved(torch.zeros(len(texts), dtype=torch.long), torch.zeros(len(texts), dtype=torch.long))
    highest = torch.full((len(texts),), -torch.inf)
    size = max(1, ELEMENTS // (images.shape[1] * texts.shape[1] * len(texts)))
    for start in range(0, len(images), size):
        chunk = slice(start, start + size)
        scores = similarity(images[chunk], texts)
        others = owners != torch.arange(start, start + len(scores))[:, None]
        of_images.ranks[chunk] = (others & (scores >= best_own[chunk, None] - TIE)).sum(1)
        of_images.nearest[chunk] = scores.argmax(1)
        of_texts.ranks.add_((others & (scores >= own_score - TIE)).sum(0))
        top, place = scores.max(0)
        of_texts.nearest[top > highest] = place[top > highest] + start
        highest = torch.maximum(highest, top)
    of_images.ranks[best_own == -torch.inf] = NEVER
    of_texts.ranks[~owned] = NEVER
    return of_images, of_texts


def recall(ranks: Int[Tensor, " n"], cuts: Sequence[int] = CUTS) -> dict[str, float]:
    """Return the share of queries with a right candidate among the k nearest, as `recall@k`."""
    return {f"recall@{k}": (ranks < k).double().mean().item() for k in cuts}


def _own_scores(
    images: Float[Tensor, "n q w"], texts: Float[Tensor, "m p w"], owners: Int[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """Similarity of each text to its own image; -inf without one."""
    found = torch.full((len(texts),), -torch.inf)
    for image in owners[owners >= 0].unique().tolist():
        own = (owners == image).nonzero().flatten()
        found[own] = similarity(images[image : image + 1], texts[own])[0]
    return found
