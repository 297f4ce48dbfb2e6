"""Positions: which number every token of a sequence has for a transformer. Pure functions of the sequence."""

import torch
from jaxtyping import Int
from torch import Tensor

from mmrnn.types import Position, Sequence, implements


@implements(Position, sequential=True)
def sequential(sequence: Sequence, start: Tensor | None = None) -> None:
    """Every token counts one: what a backbone does by itself."""
    return None


@implements(Position)
def shared_image(sequence: Sequence, start: Int[Tensor, " b"] | None = None) -> Int[Tensor, "b t"]:
    """All patches of an image have one position, whatever its size; what stands around them counts (CogVLM)."""
    steps = torch.ones_like(sequence.ids)
    for block in sequence.image_spans:
        first, last = block.start + block.layout.prefix, block.stop - block.layout.suffix
        steps[block.sample, first + 1 : last] = 0
    total = steps.cumsum(1)
    begin = _begin(sequence)
    places = total - total.gather(1, begin)
    return places if start is None else places + torch.where(begin == 0, start[:, None], 0)


@implements(Position, axes=2)
def glm_2d(
    sequence: Sequence, start: Int[Tensor, "b two"] | None = None, *, sop: int = 130004
) -> Int[Tensor, "b t two"]:
    """Two positions a token (GLM, arXiv 2103.10360): the place in the context, and the place in the reply.

    Over the context the first counts from 0 and the second is 0. From the token `sop` on the first stays at that of
    the token before it, and the second counts 1, 2, 3, ...
    """
    begin = _begin(sequence)
    reply = _since(sequence.ids == sop, begin)
    going = None if start is None else (begin == 0) & (start[:, 1:] > 0)  # the state is inside a reply already
    reply = reply if going is None else reply | going
    steps = torch.stack([~reply, reply], dim=-1).long()
    total = steps.cumsum(1)
    first = total.gather(1, begin[..., None].expand_as(total))
    opening = steps.gather(1, begin[..., None].expand_as(total))  # a sequence that opens with sop is at 1, not at 0
    places = total - first + opening * torch.tensor([0, 1], device=total.device)
    if start is None:
        return places
    return torch.where((begin == 0)[..., None], total - first + start[:, None], places)


def _begin(sequence: Sequence) -> Int[Tensor, "b t"]:
    """For every position the first of its segment in this sequence."""
    steps = torch.arange(sequence.ids.shape[1], device=sequence.ids.device).expand(sequence.ids.shape)
    if sequence.segments is None:
        return torch.zeros_like(steps)
    new = torch.ones_like(sequence.ids, dtype=torch.bool)
    new[:, 1:] = sequence.segments[:, 1:] != sequence.segments[:, :-1]
    return torch.where(new, steps, 0).cummax(dim=1).values


def _since(mark: Tensor, begin: Int[Tensor, "b t"]) -> Tensor:
    """True from a mark to the end of its segment."""
    steps = torch.arange(mark.shape[1], device=mark.device).expand(mark.shape)
    return torch.where(mark, steps, -1).cummax(dim=1).values >= begin
