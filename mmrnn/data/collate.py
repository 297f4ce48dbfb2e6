"""Samples to batches: written, tokenised, cut, padded or packed, with their pictures as pixels or as features."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mmrnn.data.image import PictureError, to_tensor
from mmrnn.data.sample import Picture, Sample
from mmrnn.prompts.piece import Prompt, Row, cut, tokenize
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
    visual: list[Tensor]


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
        visual = [tensor for row in rows for item in row for tensor in item.visual]
        stacked = {SENSE: torch.stack(visual)} if visual else {}
        sequence = self._sequence(rows)
        return Batch(sequence, images=stacked) if self.features is None else Batch(sequence, features=stacked)

    def _item(self, sample: Sample) -> Item:
        pieces = self.prompt.pieces(sample.turns, len(sample.pictures))
        shown = sum(piece.picture for piece in pieces)
        row = tokenize(pieces, self.tokenizer, [self._layout()] * shown if shown else [], sense=SENSE)
        if not self.left:
            try:
                row = cut(row, self.length)
            except ValueError as error:
                raise Dropped(str(error)) from None
            row.labels[:1] = [IGNORE]  # nothing stands before the first token to predict it from
            if all(label == IGNORE for label in row.labels):
                raise Dropped(f"there is nothing to learn in its first {self.length} positions")
        # Only now, for what is left: opening is the costly part.
        return Item(row, [self._look(picture) for picture in sample.pictures[: len(row.blocks)]])

    def _layout(self) -> Layout:
        if SENSE not in self.senses:
            raise ValueError(f"the model has no sense {SENSE!r} to look at pictures with; it has {list(self.senses)}")
        return self.senses[SENSE].layout(*self.senses[SENSE].image.size)

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
