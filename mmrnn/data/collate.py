"""Collation of samples into a batch: formatted, tokenised, truncated, padded or packed, with pixels or features."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from mmrnn.data.dropped import DroppedSample, DroppedSampleError
from mmrnn.data.image import ImageError
from mmrnn.data.preprocess import read_pixels, source_size
from mmrnn.data.rows import lay_rows
from mmrnn.prompts import TokenizedSample, insert_modality_slots, tokenize, truncate
from mmrnn.types import (
    IGNORE,
    TAG,
    Batch,
    ImageSource,
    InputSource,
    Layout,
    ModalitySpec,
    Prompt,
    Sample,
    SizedInput,
    Span,
    Tokenizer,
)

log = logging.getLogger(__name__)

IMAGE = "image"
"""Name of the modality that encodes the images of a sample."""

Input = ImageSource | InputSource | Tensor
"""An image, or an input of another modality."""


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
        tokens = [[sample.row for sample in row] for row in rows]
        sequence = lay_rows(tokens, self.tokenizer.pad, left=self.for_generation, pack=self.pack)
        return Batch(sequence, stacked, features)

    def prepare(self, sample: Sample) -> PreparedSample:
        """Return the row and the inputs of a sample.

        Raises:
            DroppedSampleError: the sample cannot be used.
            ImageError: as for a batch.
            ValueError: as for a batch.
        """
        opened: dict[int, Tensor] = {}

        def size(modality: str, given: Input) -> tuple[int, int]:
            opened[id(given)] = self._open(modality, given)
            height, width = opened[id(given)].shape[-2:]
            return height, width

        row, inputs = self._lay_out(sample, size)
        # Opening is the expensive step, so it is done only for the inputs that are left.
        remaining = [
            (span.modality, opened[id(given)] if id(given) in opened else self._open(span.modality, given))
            for span, given in zip(row.image_spans, inputs, strict=False)
        ]
        return PreparedSample(row, remaining)

    def length(self, sample: Sample) -> int:
        """Return the number of positions of a sample in a row; 0: it would be dropped.

        No image is decoded: where images have different sizes, their headers say them; so do those of other inputs
        that know their size.

        Raises:
            ValueError: a modality that the model does not have.
        """

        def size(modality: str, given: Input) -> tuple[int, int]:
            if modality == IMAGE:
                return source_size(given, self.modalities[IMAGE].image)
            height, width = (given if isinstance(given, Tensor | SizedInput) else given.open()).size()[-2:]
            return height, width

        try:
            return len(self._lay_out(sample, size)[0].ids)
        except (DroppedSampleError, ImageError):
            return 0

    def _lay_out(
        self, sample: Sample, size: Callable[[str, Input], tuple[int, int]]
    ) -> tuple[TokenizedSample, list[Input]]:
        """Row of a sample, and the input of each place.

        Args:
            size: modality and input -> height and width after preprocessing, where these differ between inputs.
        """
        spans = self.spans(sample)
        inputs = {modality: iter(given) for modality, given in (*sample.observations.items(), (IMAGE, sample.images))}
        layouts, placed = [], []
        for modality in (span.modality or IMAGE for span in spans if span.image):
            spec, given = self._modality(modality), next(inputs[modality])
            fixed = modality == IMAGE and not spec.image.variable_size
            layouts.append(self._layout(given, spec, spec.image.size if fixed else size(modality, given)))
            placed.append(given)
        row = tokenize(spans, self.tokenizer, layouts, modality=IMAGE)
        if sample.class_id is not None and row.image_spans:
            row.image_spans[0] = replace(row.image_spans[0], class_id=sample.class_id)
        return row if self.for_generation else self._truncate(row), placed

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

    def _open(self, modality: str, given: Input) -> Tensor:
        """Cached features of an image (`n e`), its pixels (`3 H W`), or an input of another modality."""
        if isinstance(given, Tensor):
            return given
        cached = self.features if modality == IMAGE else None
        if cached is not None and given.key not in cached:
            raise ValueError(f"there are no cached features of {given.key}; compute the cache again")
        try:
            if cached is not None:
                return cached[given.key]
            return read_pixels(given, self.modalities[IMAGE].image) if modality == IMAGE else given.open()
        except ImageError as error:
            self._refuse(error.reason, error)

    def _layout(self, given: Input, spec: ModalitySpec, size: tuple[int, int]) -> Layout:
        """Layout of an input; a source whose input does not fit the encoder is a fault of its sample."""
        try:
            return spec.layout(*size)
        except ValueError as error:
            if isinstance(given, Tensor) or spec.image.resize != "none":
                raise
            self._refuse("an input does not fit its encoder", ValueError(f"{given.key}: {error}"))


def _check_observations(sample: Sample, places: list[str | None]) -> None:
    for modality, given in sample.observations.items():
        if (tags := places.count(modality)) != len(given):
            which = f" of sample {sample.id}" if sample.id else ""
            raise ValueError(f"the text{which} has {tags} tags <{modality}> for {len(given)} observations")


def _stack(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """One tensor, or a tuple where shapes differ."""
    return torch.stack(tensors) if len({tensor.shape for tensor in tensors}) == 1 else tuple(tensors)
