"""Position ids of transformers: pure functions of the sequence."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmrnn.layers.rotary import AXES
from mmrnn.types import NonNegativeInt, Position, Sequence, implements


@implements(Position, sequential=True)
def sequential(sequence: Sequence, start: Tensor | None = None) -> None:
    """Return None: the backbone counts the tokens itself."""
    return None


@implements(Position)
def shared_image(sequence: Sequence, start: Int[Tensor, " b"] | None = None) -> Int[Tensor, "b t"]:
    """Give all patches of an image one id; text and the tokens around the patches count as usual (CogVLM)."""
    steps = torch.ones_like(sequence.ids)
    for span in sequence.image_spans:
        first, last = span.start + span.layout.prefix, span.stop - span.layout.suffix
        steps[span.sample, first + 1 : last] = 0
    total = steps.cumsum(1)
    segment_start = _segment_start(sequence)
    ids = total - total.gather(1, segment_start)
    return ids if start is None else ids + torch.where(segment_start == 0, start[:, None], 0)


@implements(Position, axes=2)
def glm_2d(
    sequence: Sequence, start: Int[Tensor, "b two"] | None = None, *, sop: NonNegativeInt = 130004
) -> Int[Tensor, "b t two"]:
    """Give each token an id in the context and an id in the reply (GLM, arXiv 2103.10360).

    In the context the first id counts from 0 and the second is 0. From the token `sop` on the first id stays that of
    the token before it, and the second counts 1, 2, 3, ...

    Args:
        start: ids of the first token; the second is positive where the state ends in a reply.
        sop: id of the token that starts the reply (start of piece).
    """
    segment_start = _segment_start(sequence)
    reply = _from_marker_on(sequence.ids == sop, segment_start)
    if start is not None:
        reply = reply | ((segment_start == 0) & (start[:, 1:] > 0))
    steps = torch.stack([~reply, reply], dim=-1).long()
    total = steps.cumsum(1)
    index = segment_start[..., None].expand_as(total)
    first = total.gather(1, index)
    # A segment that starts with sop has 1 as its first reply id, not 0.
    ids = total - first + steps.gather(1, index) * torch.tensor([0, 1], device=total.device)
    if start is None:
        return ids
    return torch.where((segment_start == 0)[..., None], total - first + start[:, None], ids)


@implements(Position, axes=AXES)
def mrope(sequence: Sequence, start: Int[Tensor, " b"] | None = None) -> Int[Tensor, "b t axes"]:
    """Give each token a time, a row and a column: three equal ids for text (M-RoPE, arXiv 2409.12191).

    A patch at row r and column c of an image that begins at p has (p, p + r, p + c); what follows the image goes on
    at p + max(rows, cols). Tokens before and after the patches of an image count as text.
    """
    ids = sequence.ids
    steps, offsets = torch.ones_like(ids), ids.new_zeros(*ids.shape, AXES)
    for span in sequence.image_spans:
        layout = span.layout
        first, stop, cols = span.start + layout.prefix, span.stop - layout.suffix, layout.cols + layout.separators
        if first == stop:
            continue
        place = torch.arange(stop - first, device=ids.device)
        offsets[span.sample, first:stop, 1], offsets[span.sample, first:stop, 2] = place // cols, place % cols
        steps[span.sample, first : stop - 1] = 0
        steps[span.sample, stop - 1] = max(layout.rows, cols)
    base = steps.cumsum(1) - steps  # of the positions before
    segment_start = _segment_start(sequence)
    base = base - base.gather(1, segment_start)
    if start is not None:
        base = base + torch.where(segment_start == 0, start[:, None], 0)
    return base[..., None] + offsets


def _segment_start(sequence: Sequence) -> Int[Tensor, "b t"]:
    """Index in this sequence of the first position of the segment of each position."""
    steps = torch.arange(sequence.ids.shape[1], device=sequence.ids.device).expand(sequence.ids.shape)
    if sequence.segments is None:
        return torch.zeros_like(steps)
    new = torch.ones_like(sequence.ids, dtype=torch.bool)
    new[:, 1:] = sequence.segments[:, 1:] != sequence.segments[:, :-1]
    return torch.where(new, steps, 0).cummax(dim=1).values


def _from_marker_on(marker: Bool[Tensor, "b t"], segment_start: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    """True from a marker to the end of its segment."""
    steps = torch.arange(marker.shape[1], device=marker.device).expand(marker.shape)
    return torch.where(marker, steps, -1).cummax(dim=1).values >= segment_start
