"""Samples to batches: written, tokenised, cut, padded or packed, with their pictures as pixels or as features."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mmrnn.data.image import PictureError, to_tensor
from mmrnn.data.sample import Picture, Sample
from mmrnn.prompts.piece import Prompt, Row, cut, observe, tokenize
from mmrnn.types import IGNORE, Batch, Block, ImageSpec, Layout, Tokenizer
from mmrnn.types import Sequence as Tokens

log = logging.getLogger(__name__)

SENSE = "image"
"""The sense that reads the pictures of a sample."""


@runtime_checkable
class Sense(Protocol):
    """What has to be known of a sense: what its pictures look like and how their visual tokens lie."""

    image: ImageSpec

    def layout(self, height: int, width: int) -> Layout: ...


class Dropped(Exception):
    """Why a sample cannot be used."""


@dataclass(frozen=True)
class Item:
    """A sample ready to be laid into a row."""

    row: Row
    visual: list[tuple[str, Tensor]]  # the sense and what it reads


class Collator:
    """Makes a batch of samples; None if not one of them could be used.

    A sample is dropped when a picture cannot be opened, when nothing to learn is left in its first `length` positions,
    or when that length would cut a picture in two. `dropped` holds id and reason of each (of this process: a worker of
    a DataLoader has its own list, therefore they are logged, too).

    For training rows are padded on the right. With `pack` several samples share a row, told apart by `segments`, the
    first fitting row takes each. For generation (`left`) rows are padded on the left, with segment 0 before the text
    and 1 in it, nothing is cut, and a sample needs no target.

    Args:
        features: cached encoder tokens (`n e`) by `picture.key`; with them no picture is opened.
        length: positions of a row, those of the visual tokens included.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Prompt,
        senses: Mapping[str, Sense],
        features: Mapping[str, Tensor] | None = None,
        *,
        length: int = 2048,
        left: bool = False,
        pack: bool = False,
    ) -> None:
        if left and pack:
            raise ValueError("left and pack exclude each other: a packed row has no one end to go on from")
        self.tokenizer, self.prompt, self.senses, self.features = tokenizer, prompt, senses, features
        self.length, self.left, self.pack = length, left, pack
        self.dropped: list[tuple[str, str]] = []

    def __call__(self, samples: Sequence[Sample]) -> Batch | None:
        items = []
        for sample in samples:
            try:
                items.append(self._item(sample))
            except Dropped as reason:
                self.dropped.append((sample.id, str(reason)))
                log.warning("sample %s is dropped: %s", sample.id, reason)
        if not items:
            return None
        rows = _first_fit(items, self.length) if self.pack else [[item] for item in items]
        visual: dict[str, list[Tensor]] = {}
        for sense, tensor in (one for row in rows for item in row for one in item.visual):
            visual.setdefault(sense, []).append(tensor)
        stacked = {sense: _stack(tensors) for sense, tensors in visual.items()}
        features = {SENSE: stacked.pop(SENSE)} if self.features is not None and SENSE in stacked else {}
        return Batch(self._sequence(rows), stacked, features)

    def _item(self, sample: Sample) -> Item:
        shown = observe(self.prompt.pieces(sample.turns, len(sample.pictures)), tuple(sample.observations))
        places = [piece.sense or SENSE for piece in shown if piece.picture]
        for sense, given in sample.observations.items():
            if (tags := places.count(sense)) != len(given):
                told = "more" if tags > len(given) else "fewer"
                which = f" of sample {sample.id}" if sample.id else ""
                raise ValueError(f"the text{which} has {told} tags <{sense}> than observations")
        others = {sense: iter(given) for sense, given in sample.observations.items()}
        pictures: dict[int, Tensor] = {}
        layouts, read = [], []
        for sense in places:
            if sense != SENSE:
                tensor = next(others[sense])
                layouts.append(self._sense(sense).layout(*tensor.shape[-2:]))
                read.append(tensor)
                continue
            number = len(pictures)
            # A picture that keeps its shape has to be seen to know its tokens; the others are opened last.
            pictures[number] = self._look(sample.pictures[number]) if self._sense(SENSE).image.ragged else None
            size = self._sense(SENSE).image.size if pictures[number] is None else pictures[number].shape[-2:]
            layouts.append(self._sense(SENSE).layout(*size))
            read.append(number)
        row = tokenize(shown, self.tokenizer, layouts, sense=SENSE)
        if not self.left:
            try:
                row = cut(row, self.length)
            except ValueError as error:
                raise Dropped(str(error)) from None
            row.labels[:1] = [IGNORE]  # nothing stands before the first token to predict it from
            if all(label == IGNORE for label in row.labels):
                raise Dropped(f"there is nothing to learn in its first {self.length} positions")
        # Only now, for what is left: opening is the costly part.
        visual = []
        for block, one in zip(row.blocks, read, strict=False):
            if isinstance(one, int):
                seen = pictures[one]
                one = self._look(sample.pictures[one]) if seen is None else seen
            visual.append((block.sense, one))
        return Item(row, visual)

    def _sense(self, name: str) -> Sense:
        if name not in self.senses:
            what = "look at pictures with" if name == SENSE else f"read <{name}> with"
            raise ValueError(f"the model has no sense {name!r} to {what}; it has {list(self.senses)}")
        return self.senses[name]

    def _look(self, picture: Picture) -> Tensor:
        if self.features is not None:
            if picture.key not in self.features:
                raise ValueError(f"there are no cached features of {picture.key}; compute them again")
            return self.features[picture.key]
        try:
            return to_tensor(picture.open(), self.senses[SENSE].image)
        except PictureError as error:
            raise Dropped(str(error)) from error

    def _sequence(self, rows: list[list[Item]]) -> Tokens:
        sizes = [sum(len(item.row.ids) for item in row) for row in rows]
        shape = len(rows), max(sizes)
        ids, labels = torch.full(shape, self.tokenizer.pad), torch.full(shape, IGNORE)
        segments = torch.zeros(shape, dtype=torch.long)
        blocks: list[Block] = []
        for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            start = shape[1] - size if self.left else 0
            for segment, item in enumerate(row):
                stop = start + len(item.row.ids)
                ids[index, start:stop] = torch.tensor(item.row.ids)
                labels[index, start:stop] = torch.tensor(item.row.labels)
                # Padding behind the last sample of a row counts to its segment.
                segments[index, start:] = 1 if self.left else segment
                blocks += [replace(block, sample=index, start=start + block.start) for block in item.row.blocks]
                start = stop
        told = self.pack or (self.left and min(sizes) < shape[1])
        return Tokens(ids, tuple(blocks), labels=labels, segments=segments if told else None)


def _stack(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """One tensor where all have one shape."""
    return torch.stack(tensors) if len({tensor.shape for tensor in tensors}) == 1 else tuple(tensors)


def _first_fit(items: list[Item], length: int) -> list[list[Item]]:
    """Rows of items, each item in the first row that has room for it."""
    rows: list[list[Item]] = []
    room: list[int] = []
    for item in items:
        size = len(item.row.ids)
        index = next((index for index, left in enumerate(room) if left >= size), len(rows))
        if index == len(rows):
            rows.append([])
            room.append(length)
        rows[index].append(item)
        room[index] -= size
    return rows
