"""Rows of several states in one: tensors that grow with what is read are padded on the left and masked.

Tensors are known by the names of `State.tensors`: `layers.0.key`, `shared.segments`.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

ANY_SEGMENT = -1
"""Segment of the text of a row without segments, beside rows that have some: the one that the next token belongs to."""

PADDING_SEGMENT = -2
"""Segment of positions that only fill a row of a state up to the longest one; no token attends to them."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class GrowingTensors:
    """Tensors whose size depends on what was read, and the mask that says which of it belongs to a row.

    Attributes:
        mask: name of the mask (`b s`) in `State.shared`.
        names: of the tensors that it masks, in the layers or in `State.shared`.
        axis: of the tensors.
        pad: value of the mask in padding.
        valid: value of the mask where a state has the tensors and no mask; None: it always has one.
        optional: a state lacks the tensors before anything was read.
    """

    mask: str
    names: tuple[str, ...]
    axis: int
    pad: int
    valid: int | None = None
    optional: bool = False

    def find(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Return those of a state's tensors that are masked."""
        return {name: value for name, value in tensors.items() if name.rpartition(".")[2] in self.names}


GROWING = (
    GrowingTensors("segments", ("key", "value"), 2, PADDING_SEGMENT, ANY_SEGMENT),
    GrowingTensors("tiny_segments", ("tiny_key", "tiny_value"), 2, PADDING_SEGMENT, ANY_SEGMENT, optional=True),
    GrowingTensors("encoder_mask", ("encoder_output",), 1, PADDING_SEGMENT, ANY_SEGMENT),
    GrowingTensors("media_mask", ("media",), 1, 0, optional=True),
)
"""Every tensor whose size may differ between states; backbones and hooks attend to what its mask allows."""

NEUTRAL = {"shared.segment": ANY_SEGMENT, "shared.ntk_alpha": 0, "shared.visual_shift": 0}
"""Values of tensors in the rows of states that lack them."""


def cat_rows(states: Several[Mapping[str, Tensor]]) -> Tensors:
    """Concatenate the rows of the tensors of several states.

    Raises:
        ValueError: the states differ in the names of their tensors, in a size that is none of `GROWING`, or in device.
    """
    states = [dict(tensors) for tensors in states]
    rows = [next((len(value) for value in tensors.values()), 0) for tensors in states]
    for growing in GROWING:
        _pad(growing, states, rows)
    for name, neutral in NEUTRAL.items():
        like = next((tensors[name] for tensors in states if name in tensors), None)
        for tensors, count in zip(states, rows, strict=True):
            if like is not None and name not in tensors:
                tensors[name] = like.new_full((count, *like.shape[1:]), neutral)
    first = states[0]
    for number, tensors in enumerate(states[1:], 2):
        if differing := sorted(first.keys() ^ tensors.keys()):
            raise ValueError(f"only one of the states 1 and {number} has {differing[0]!r}; read with the same model")
        for name, value in tensors.items():
            if value.shape[1:] != first[name].shape[1:]:
                shapes = [tuple(each.shape[1:]) for each in (first[name], value)]
                raise ValueError(f"{name} of the states 1 and {number} differs in shape: {shapes[0]} and {shapes[1]}")
            if value.device != first[name].device:
                devices = f"state {number} is on {value.device}, state 1 on {first[name].device}"
                raise ValueError(f"{devices}; move one with `State.to`")
    return {name: torch.cat([tensors[name] for tensors in states]) for name in first}


def cut_padding(tensors: Tensors, rows: Int[Tensor, " rows"]) -> Tensors:
    """Return views of the tensors, without the padding that all of some rows have, in order to select these rows.

    Masks and tensors that `cat_rows` added for other rows are left out.
    """
    tensors = dict(tensors)
    if not len(rows):
        return tensors
    for growing in GROWING:
        name = f"shared.{growing.mask}"
        if name not in tensors:
            continue
        mask = tensors[name][rows]
        length = mask.shape[1]
        start = int((mask == growing.pad).all(0).int().cumprod(0).sum())
        if start:
            tensors[name] = tensors[name][:, start:]
            for key, value in growing.find(tensors).items():
                tensors[key] = value.narrow(growing.axis, start, length - start)
        if start == length and growing.optional:
            tensors = {key: value for key, value in tensors.items() if key not in growing.find(tensors)}
        if start == length or (growing.valid is not None and bool((mask[:, start:] == growing.valid).all())):
            del tensors[name]
    return {
        name: value for name, value in tensors.items() if name not in NEUTRAL or (value[rows] != NEUTRAL[name]).any()
    }


def _pad(growing: GrowingTensors, states: list[Tensors], rows: list[int]) -> None:
    """Pad growing tensors to one length, in place, and make the masks of them."""
    like = next((found for tensors in states if (found := growing.find(tensors))), {})
    name, lengths = f"shared.{growing.mask}", []
    for tensors, count in zip(states, rows, strict=True):
        if growing.optional and not growing.find(tensors):
            for key, value in like.items():
                tensors[key] = value.narrow(growing.axis, 0, 0)[:1].expand(count, *[-1] * (value.dim() - 1))
        sizes = {value.shape[growing.axis] for value in growing.find(tensors).values()}
        sizes |= {tensors[name].shape[1]} if name in tensors else set()
        if len(sizes) > 1:
            raise ValueError(f"a state is damaged: its {', '.join(growing.names)} and {name} differ in length")
        lengths.append(next(iter(sizes), 0))
    given = next((tensors[name] for tensors in states if name in tensors), None)
    longest = max(lengths)
    if given is None and set(lengths) == {longest}:
        return
    for tensors, count, length in zip(states, rows, lengths, strict=True):
        for key, value in growing.find(tensors).items():
            before = [0, 0] * (value.dim() - growing.axis - 1)
            tensors[key] = F.pad(value, (*before, longest - length, 0))
            if name not in tensors:
                kind = torch.long if given is None else given.dtype
                tensors[name] = torch.full((count, length), growing.valid or 0, dtype=kind, device=value.device)
        if name in tensors:
            tensors[name] = F.pad(tensors[name], (longest - length, 0), value=growing.pad)
