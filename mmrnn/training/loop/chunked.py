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

    A piece of a packed row ends between two samples where it can, so that no gradient is lost there. A cut that would
    split an image is moved before it, or behind it where the piece would be empty.
    """
    length = sequence.ids.shape[1]
    allowed = torch.ones(length + 1, dtype=torch.bool)
    for span in sequence.image_spans:
        allowed[span.start + 1 : span.stop] = False
    if keep_adjoining:
        allowed[1:-1] &= ~(sequence.visual[:, 1:] & sequence.visual[:, :-1]).any(0).cpu()
    between_samples = torch.zeros_like(allowed)
    if sequence.segments is not None:
        between_samples[1:-1] = allowed[1:-1] & (sequence.segments.diff(dim=1) != 0).all(0).cpu()
    edges = [0]
    while length - (start := edges[-1]) > size:
        for places in (between_samples, allowed):
            if (found := places[start + 1 : start + size + 1].nonzero()).numel():
                edges.append(start + 1 + int(found[-1]))
                break
        else:
            edges.append(start + 1 + int(allowed[start + 1 :].nonzero()[0]))
    return [*edges, length] if edges[-1] < length else edges
