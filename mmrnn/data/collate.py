"""Samples to batches: written, tokenised, cut, padded or packed, with their images as pixels or as features."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mmrnn.data.image import ImageError, to_tensor
from mmrnn.prompts import TokenizedSample, insert_modality_slots, tokenize, truncate
from mmrnn.types import IGNORE, Batch, ImageSpan, ImageSpec, Layout, Prompt, Tokenizer
from mmrnn.types import Sequence as Tokens
from mmrnn.types.sample import ImageSource, Sample

log = logging.getLogger(__name__)

IMAGE = "image"
"""The modality that reads the images of a sample."""


@runtime_checkable
class Modality(Protocol):
    """What has to be known of a modality: what its images look like and how their visual tokens lie."""

    image: ImageSpec

    def layout(self, height: int, width: int) -> Layout: ...


class Dropped(Exception):
    """Why a sample cannot be used."""


@dataclass(frozen=True)
class Item:
    """A sample ready to be laid into a row."""

    row: TokenizedSample
    visual: list[tuple[str, Tensor]]  # the modality and what it reads


class Collator:
    """Makes a batch of samples; None if not one of them could be used.

    A sample is dropped when an image cannot be opened, when no target is left in its first `max_length` positions,
    or when that length would cut an image in two. `dropped` holds id and reason of each (of this process: a worker of
    a DataLoader has its own list, therefore they are logged, too).

    For training rows are padded on the right. With `pack` several samples share a row, told apart by `segments`, the
    first fitting row takes each. For generation (`for_generation`) rows are padded on the left, with segment 0 before the text
    and 1 in it, nothing is cut, and a sample needs no target.

    Args:
        features: cached encoder tokens (`n e`) by `image.key`; with them no image is opened.
        max_length: positions of a row, those of the visual tokens included.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Prompt,
        modalities: Mapping[str, Modality],
        features: Mapping[str, Tensor] | None = None,
        *,
        max_length: int = 2048,
        for_generation: bool = False,
        pack: bool = False,
    ) -> None:
        if for_generation and pack:
            raise ValueError("for_generation and pack exclude each other: a packed row has no one end to go on from")
        self.tokenizer, self.prompt, self.modalities, self.features = tokenizer, prompt, modalities, features
        self.max_length, self.for_generation, self.pack = max_length, for_generation, pack
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
        rows = _first_fit(items, self.max_length) if self.pack else [[item] for item in items]
        visual: dict[str, list[Tensor]] = {}
        for modality, tensor in (one for row in rows for item in row for one in item.visual):
            visual.setdefault(modality, []).append(tensor)
        stacked = {modality: _stack(tensors) for modality, tensors in visual.items()}
        features = {IMAGE: stacked.pop(IMAGE)} if self.features is not None and IMAGE in stacked else {}
        return Batch(self._sequence(rows), stacked, features)

    def _item(self, sample: Sample) -> Item:
        shown = insert_modality_slots(self.prompt.spans(sample.turns, len(sample.images)), tuple(sample.observations))
        places = [span.modality or IMAGE for span in shown if span.image]
        for modality, given in sample.observations.items():
            if (tags := places.count(modality)) != len(given):
                told = "more" if tags > len(given) else "fewer"
                which = f" of sample {sample.id}" if sample.id else ""
                raise ValueError(f"the text{which} has {told} tags <{modality}> than observations")
        others = {modality: iter(given) for modality, given in sample.observations.items()}
        images: dict[int, Tensor] = {}
        layouts, read = [], []
        for modality in places:
            if modality != IMAGE:
                tensor = next(others[modality])
                layouts.append(self._modality(modality).layout(*tensor.shape[-2:]))
                read.append(tensor)
                continue
            number = len(images)
            # An image that keeps its shape has to be seen to know its tokens; the others are opened last.
            images[number] = self._look(sample.images[number]) if self._modality(IMAGE).image.ragged else None
            size = self._modality(IMAGE).image.size if images[number] is None else images[number].shape[-2:]
            layouts.append(self._modality(IMAGE).layout(*size))
            read.append(number)
        row = tokenize(shown, self.tokenizer, layouts, modality=IMAGE)
        if not self.for_generation:
            try:
                row = truncate(row, self.max_length)
            except ValueError as error:
                raise Dropped(str(error)) from None
            row.labels[:1] = [IGNORE]  # nothing stands before the first token to predict it from
            if all(label == IGNORE for label in row.labels):
                raise Dropped(f"there is nothing to learn in its first {self.max_length} positions")
        # Only now, for what is left: opening is the costly part.
        visual = []
        for block, one in zip(row.image_spans, read, strict=False):
            if isinstance(one, int):
                seen = images[one]
                one = self._look(sample.images[one]) if seen is None else seen
            visual.append((block.modality, one))
        return Item(row, visual)

    def _modality(self, name: str) -> Modality:
        if name not in self.modalities:
            what = "look at images with" if name == IMAGE else f"read <{name}> with"
            raise ValueError(f"the model has no modality {name!r} to {what}; it has {list(self.modalities)}")
        return self.modalities[name]

    def _look(self, image: ImageSource) -> Tensor:
        if self.features is not None:
            if image.key not in self.features:
                raise ValueError(f"there are no cached features of {image.key}; compute them again")
            return self.features[image.key]
        try:
            return to_tensor(image.open(), self.modalities[IMAGE].image)
        except ImageError as error:
            raise Dropped(str(error)) from error

    def _sequence(self, rows: list[list[Item]]) -> Tokens:
        sizes = [sum(len(item.row.ids) for item in row) for row in rows]
        shape = len(rows), max(sizes)
        ids, labels = torch.full(shape, self.tokenizer.pad), torch.full(shape, IGNORE)
        segments = torch.zeros(shape, dtype=torch.long)
        blocks: list[ImageSpan] = []
        for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            start = shape[1] - size if self.for_generation else 0
            for segment, item in enumerate(row):
                stop = start + len(item.row.ids)
                ids[index, start:stop] = torch.tensor(item.row.ids)
                labels[index, start:stop] = torch.tensor(item.row.labels)
                # Padding behind the last sample of a row counts to its segment.
                segments[index, start:] = 1 if self.for_generation else segment
                blocks += [replace(block, sample=index, start=start + block.start) for block in item.row.image_spans]
                start = stop
        told = self.pack or (self.for_generation and min(sizes) < shape[1])
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
