"""Chunked training: a micro-batch is read in pieces that pass on a state; memory does not grow with its length."""

from dataclasses import replace
from itertools import pairwise

import torch

from mmrnn.types import Batch, Objective, Sequence


def split(batch: Batch, objective: Objective, size: int, *, keep_adjoining: bool = False) -> list[Batch]:
    """Cut a micro-batch into pieces of about `size` positions, whose losses add up to that of the whole.

    Args:
        batch: with labels.
        objective: a sum over targets.
        size: largest number of positions of a piece, unless an image is longer; 0: do not cut.
        keep_adjoining: images without text in between stay in one piece.

    Raises:
        ValueError: the objective is no sum over targets.
    """
    sequence = batch.sequence
    edges = cuts(sequence, size, keep_adjoining=keep_adjoining) if size else []
    if len(edges) <= 2:
        return [batch]
    weights = objective.target_weights(sequence)
    if weights is None:
        raise ValueError(
            f"{type(objective).__name__} is no sum over targets and needs a whole batch; set train_chunk=0"
        )
    whole = replace(batch, sequence=replace(sequence, loss_weights=weights))
    return [whole.slice(start, stop) for start, stop in pairwise(edges)]


def cuts(sequence: Sequence, size: int, *, keep_adjoining: bool = False) -> list[int]:
    """Return the edges of the pieces of all rows, from 0 to the length; none lies inside an image of any row.

    A cut that would split an image is moved before it, or behind it where the piece would be empty.
    """
    length = sequence.ids.shape[1]
    allowed = torch.ones(length + 1, dtype=torch.bool)
    for span in sequence.image_spans:
        allowed[span.start + 1 : span.stop] = False
    if keep_adjoining:
        visual = sequence.visual.cpu()
        allowed[1:-1] &= ~(visual[:, 1:] & visual[:, :-1]).any(0)
    places = allowed.nonzero().flatten().tolist()
    edges = [0]
    for place, following in pairwise([*places, length + size]):
        if place > edges[-1] and following - edges[-1] > size:
            edges.append(place)
    return edges
