"""Collation of samples into a batch: formatted, tokenised, truncated, padded or packed, with pixels or features."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from mmrnn.data.image import ImageError, image_size
from mmrnn.data.preprocess import prepared_size, to_tensor
from mmrnn.prompts import TokenizedSample, insert_modality_slots, tokenize, truncate
from mmrnn.types import (
    IGNORE,
    TAG,
    Batch,
    ImageSource,
    ImageSpan,
    InputSource,
    Layout,
    ModalitySpec,
    Prompt,
    Sample,
    Span,
    Tokenizer,
)
from mmrnn.types import Sequence as Tokens

log = logging.getLogger(__name__)

IMAGE = "image"
"""Name of the modality that encodes the images of a sample."""


class DroppedSampleError(Exception):
    """Reason for which a sample is dropped.

    Attributes:
        reason: the same for every sample with this fault.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


class DroppedSample(NamedTuple):
    """A sample that is dropped.

    Attributes:
        id: of the sample.
        reason: the same for every sample with this fault.
        detail: the reason with what it says of this sample.
    """

    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class PreparedSample:
    """A sample ready to be placed into a row.

    Attributes:
        row: ids, labels and places of the inputs.
        inputs: name of the modality and input (pixels, features or observations) of each place.
    """

    row: TokenizedSample
    inputs: list[tuple[str, Tensor]]


class Collator:
    """Collates samples into a batch.

    For training, a sample is dropped when an image cannot be opened, when tags and images or observations differ in
    number, when the prompt cannot format it, when no target is left in its first `max_length` positions, or when that
    length would split an image. Drops are logged, and recorded in `dropped` (of this process: each worker of a
    DataLoader has its own list). A longer sample is truncated.

    For training, rows are padded on the right. With `pack`, all samples lie end to end in one row, distinguished by
    `segments`. For generation, rows are padded on the left (segment 0 in the padding, 1 in the text), nothing is
    truncated, a sample needs no target, and none is dropped: its faults are raised.

    Args:
        tokenizer: of the text.
        prompt: format of the dialogues.
        modalities: of the model, by name.
        features: cached encoder tokens (`n e`) by `ImageSource.key`; with them no image is opened. A lookup raises
            ImageError for an image that could not be opened when they were computed.
        max_length: of a sample in positions, visual tokens included.
        for_generation: collate prompts to be answered.
        pack: put all samples into one row.

    Attributes:
        dropped: samples that were dropped.

    Raises:
        ValueError: `for_generation` and `pack` are both set.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Prompt,
        modalities: Mapping[str, ModalitySpec],
        features: Mapping[str, Tensor] | None = None,
        *,
        max_length: int = 2048,
        for_generation: bool = False,
        pack: bool = False,
    ) -> None:
        if for_generation and pack:
            raise ValueError("for_generation and pack exclude each other: a packed row cannot be continued")
        self.tokenizer, self.prompt, self.modalities, self.features = tokenizer, prompt, modalities, features
        self.max_length, self.for_generation, self.pack = max_length, for_generation, pack
        self.dropped: list[DroppedSample] = []

    def __call__(self, samples: Sequence[Sample]) -> Batch | None:
        """Return the batch of the samples; None if all of them are dropped.

        Raises:
            ImageError: for generation, an image cannot be opened.
            ValueError: a modality that the model does not have, or no cached features of an image; for generation also
                tags and images or observations that differ in number, or turns that the prompt cannot format.
        """
        prepared = []
        for sample in samples:
            try:
                prepared.append(self.prepare(sample))
            except DroppedSampleError as error:
                self.dropped.append(DroppedSample(sample.id, error.reason, str(error)))
                log.warning("sample %s is dropped: %s", sample.id, error)
        return self.assemble(prepared)

    def assemble(self, prepared: Sequence[PreparedSample]) -> Batch | None:
        """Return the batch of prepared samples; None if there are none."""
        if not prepared:
            return None
        rows = [prepared] if self.pack else [[sample] for sample in prepared]
        inputs: dict[str, list[Tensor]] = {}
        for modality, tensor in (item for row in rows for sample in row for item in sample.inputs):
            inputs.setdefault(modality, []).append(tensor)
        stacked = {modality: _stack(tensors) for modality, tensors in inputs.items()}
        features = {IMAGE: stacked.pop(IMAGE)} if self.features is not None and IMAGE in stacked else {}
        return Batch(self._sequence(rows), stacked, features)

    def prepare(self, sample: Sample) -> PreparedSample:
        """Return the row and the inputs of a sample.

        Raises:
            DroppedSampleError: the sample cannot be used.
            ImageError: as for a batch.
            ValueError: as for a batch.
        """
        opened: dict[int, Tensor] = {}

        def size(number: int) -> tuple[int, int]:
            opened[number] = self._input(sample.images[number])
            height, width = opened[number].shape[-2:]
            return height, width

        row, inputs = self._lay_out(sample, size)
        # Opening is the expensive step, so it is done only for the images that are left.
        remaining = []
        for span, item in zip(row.image_spans, inputs, strict=False):
            if isinstance(item, int):
                item = opened[item] if item in opened else self._input(sample.images[item])
            remaining.append((span.modality, item))
        return PreparedSample(row, remaining)

    def length(self, sample: Sample) -> int:
        """Return the number of positions of a sample in a row; 0: it would be dropped.

        No image is decoded: where images have different sizes, their headers say them.

        Raises:
            ValueError: a modality that the model does not have.
        """

        def size(number: int) -> tuple[int, int]:
            return prepared_size(image_size(sample.images[number]), self.modalities[IMAGE].image)

        try:
            return len(self._lay_out(sample, size)[0].ids)
        except (DroppedSampleError, ImageError):
            return 0

    def _lay_out(
        self, sample: Sample, size: Callable[[int], tuple[int, int]]
    ) -> tuple[TokenizedSample, list[int | Tensor]]:
        """Row of a sample, and the input of each place: an observation, or the number of an image.

        Args:
            size: number of an image -> height and width after preprocessing, where these differ between images.
        """
        spans = self.spans(sample)
        observations = {modality: iter(given) for modality, given in sample.observations.items()}
        numbers = iter(range(len(sample.images)))
        layouts, inputs = [], []
        for modality in (span.modality or IMAGE for span in spans if span.image):
            spec = self._modality(modality)
            if modality != IMAGE:
                tensor, layout = self._observation(next(observations[modality]), spec)
                layouts.append(layout)
                inputs.append(tensor)
                continue
            number = next(numbers)
            layouts.append(spec.layout(*(size(number) if spec.image.variable_size else spec.image.size)))
            inputs.append(number)
        row = tokenize(spans, self.tokenizer, layouts, modality=IMAGE)
        if sample.class_id is not None and row.image_spans:
            row.image_spans[0] = replace(row.image_spans[0], class_id=sample.class_id)
        return row if self.for_generation else self._truncate(row), inputs

    def spans(self, sample: Sample) -> list[Span]:
        """Return the spans of a sample, with those of its observations.

        Raises:
            DroppedSampleError: tags and inputs differ in number, or the prompt cannot format the turns; for generation
                it is a ValueError.
        """
        try:
            spans = self.prompt.spans(sample.turns, len(sample.images))
        except ValueError as error:
            tags = sum(turn.text.count(TAG) for turn in sample.turns if turn.role == "user")
            fits = tags == len(sample.images)
            self._refuse("the prompt cannot format its turns" if fits else "tags and images differ in number", error)
        spans = insert_modality_slots(spans, tuple(sample.observations))
        try:
            _check_observations(sample, [span.modality for span in spans if span.image])
        except ValueError as error:
            self._refuse("tags and observations differ in number", error)
        return spans

    def _refuse(self, reason: str, error: ValueError) -> NoReturn:
        """Raise an error of a sample: it is dropped in training, and its own fault when it is asked about."""
        if self.for_generation:
            raise error
        raise DroppedSampleError(reason, str(error)) from error

    def _truncate(self, row: TokenizedSample) -> TokenizedSample:
        """Cut a row to `max_length`; raise `DroppedSampleError` if an image is split or no target is left."""
        try:
            row = truncate(row, self.max_length)
        except ValueError as error:
            raise DroppedSampleError("max_length splits an image", str(error)) from None
        row.labels[:1] = [IGNORE]  # no position predicts the first token
        if all(label == IGNORE for label in row.labels):
            raise DroppedSampleError(f"there is no target in its first {self.max_length} positions")
        return row

    def _modality(self, name: str) -> ModalitySpec:
        if name not in self.modalities:
            raise ValueError(f"the model has no modality {name!r} for <{name}>; it has {[*self.modalities]}")
        return self.modalities[name]

    def _input(self, image: ImageSource) -> Tensor:
        """Cached features of an image (`n e`), or its pixels (`3 H W`)."""
        if self.features is not None and image.key not in self.features:
            raise ValueError(f"there are no cached features of {image.key}; compute the cache again")
        try:
            if self.features is not None:
                return self.features[image.key]
            return to_tensor(image.open(), self.modalities[IMAGE].image)
        except ImageError as error:
            self._refuse(error.reason, error)

    def _observation(self, given: Tensor | InputSource, spec: ModalitySpec) -> tuple[Tensor, Layout]:
        """Input of another modality, read where it is not, and its layout."""
        if isinstance(given, Tensor):
            return given, spec.layout(*given.shape[-2:])
        try:
            tensor = given.open()
            return tensor, spec.layout(*tensor.shape[-2:])
        except ImageError as error:
            self._refuse(error.reason, error)
        except ValueError as error:
            self._refuse("an input does not fit its encoder", ValueError(f"{given.key}: {error}"))

    def _sequence(self, rows: Sequence[Sequence[PreparedSample]]) -> Tokens:
        sizes = [sum(len(sample.row.ids) for sample in row) for row in rows]
        shape = len(rows), max(sizes)
        ids, labels = torch.full(shape, self.tokenizer.pad), torch.full(shape, IGNORE)
        segments, padding = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool)
        spans: list[ImageSpan] = []
        for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            start = shape[1] - size if self.for_generation else 0
            for segment, sample in enumerate(row):
                stop = start + len(sample.row.ids)
                ids[index, start:stop] = torch.tensor(sample.row.ids)
                labels[index, start:stop] = torch.tensor(sample.row.labels)
                padding[index, start:stop] = False
                # Padding after the last sample of a row belongs to the segment of that sample.
                segments[index, start:] = 1 if self.for_generation else segment
                spans += [replace(span, sample=index, start=start + span.start) for span in sample.row.image_spans]
                start = stop
        padded = min(sizes) < shape[1]
        return Tokens(
            ids,
            tuple(spans),
            labels=labels,
            segments=segments if self.pack or (self.for_generation and padded) else None,
            padding=padding if padded else None,
        )


def _check_observations(sample: Sample, places: list[str | None]) -> None:
    for modality, given in sample.observations.items():
        if (tags := places.count(modality)) != len(given):
            which = f" of sample {sample.id}" if sample.id else ""
            raise ValueError(f"the text{which} has {tags} tags <{modality}> for {len(given)} observations")


def _stack(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """One tensor, or a tuple where shapes differ."""
    return torch.stack(tensors) if len({tensor.shape for tensor in tensors}) == 1 else tuple(tensors)
