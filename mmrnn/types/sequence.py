"""Token sequence and batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrnn.types.layout import ImageSpan

SLOT = -200
"""Id of a position that a visual token will fill (the placeholder id of VisualRWKV and LLaVA)."""

IGNORE = -100
"""Label of a position without a target."""


@dataclass(frozen=True)
class Sequence:
    """Rows of a batch, with every fact about them that a part of the model reads.

    Attributes:
        ids: token ids; `SLOT` where a visual token stands.
        image_spans: places of the images, in the order of their modality's inputs.
        embeds: embeddings of text and visual tokens; None before `VLM.embed`.
        labels: id that is trained on at each position (not shifted), or `IGNORE`.
        segments: sample that a position belongs to, counted in its row, where rows hold several samples (packing) or
            begin with padding; a backbone resets at each change. None: one sample a row.
        positions: position ids, with an axis for each id of a token where there are several; None: the backbone counts
            from the start of the segment.
        attention_mask: True where the query of axis 1 attends to the key of axis 2; None: causal.
        media: visual tokens that fill no slots, one row for each span with `layout.cross_attention`.
        next_label: of a slice, the label after its last position; None: nothing follows.
        full_size: of a slice, the number of positions without padding of the sequence that it was cut from; None: it is
            no slice.
        loss_weights: weight of each target in the loss; None: the objective derives it from labels and segments.
        padding: True at positions that only fill a row up to the length of the batch; None: there are none.

    Raises:
        ValueError: `ids` has another number of axes than two.
    """

    ids: Int[Tensor, "b t"]
    image_spans: tuple[ImageSpan, ...] = ()
    embeds: Float[Tensor, "b t d"] | None = None
    labels: Int[Tensor, "b t"] | None = None
    segments: Int[Tensor, "b t"] | None = None
    positions: Int[Tensor, "b t *axes"] | None = None
    attention_mask: Bool[Tensor, "b t t"] | None = None
    media: Float[Tensor, "m v e"] | None = None
    next_label: Int[Tensor, " b"] | None = None
    full_size: int | None = None
    loss_weights: Float[Tensor, "b t"] | None = None
    padding: Bool[Tensor, "b t"] | None = None

    def __post_init__(self) -> None:
        if self.ids.dim() != 2:
            raise ValueError(f"ids must have two axes, rows and positions, not {self.ids.dim()}; see `Tensor.view`")

    @property
    def visual(self) -> Tensor:
        """Mask of the visual tokens, `b t`."""
        return self.ids == SLOT

    @property
    def targets(self) -> Int[Tensor, "b t"]:
        """Id that each position predicts: the label of the next one, or `IGNORE`."""
        last = self.labels.new_full((len(self.labels),), IGNORE) if self.next_label is None else self.next_label
        return torch.cat([self.labels[:, 1:], last[:, None]], dim=1)

    @property
    def size(self) -> int:
        """Number of positions without padding."""
        return self.ids.numel() if self.padding is None else int((~self.padding).sum())

    def slice(self, start: int, stop: int) -> "Sequence":
        """Return the positions `start:stop` of every row; the last one keeps its target.

        Raises:
            ValueError: an image would be split; a scan needs all of its tokens.
        """
        spans, media, index = [], [], -1
        for span in self.image_spans:
            index += bool(span.layout.cross_attention)
            if span.lies_within(start, stop):
                spans.append(replace(span, start=span.start - start))
                media += [index] if span.layout.cross_attention else []
            elif span.start < stop and span.stop > start:
                raise ValueError(
                    f"the cut {start}:{stop} splits the image at {span.start}:{span.stop} of row {span.sample}; "
                    "cut before or after it"
                )
        length = self.ids.shape[1]
        fields = ("ids", "embeds", "labels", "segments", "positions", "loss_weights", "padding")
        parts = {name: value[:, start:stop] for name in fields if (value := getattr(self, name)) is not None}
        if self.attention_mask is not None:
            parts["attention_mask"] = self.attention_mask[:, start:stop, start:stop]
        if self.media is not None:
            parts["media"] = self.media[media]
        if self.labels is not None and stop < length:
            parts["next_label"] = self.labels[:, stop]
        return replace(self, image_spans=tuple(spans), full_size=self.full_size or self.size, **parts)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Sequence":
        """Return the sequence on a device; `non_blocking` as of `Tensor.to`."""
        return self._map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Sequence":
        """Return the sequence in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Sequence":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: change(value) for name, value in tensors.items()})


@dataclass(frozen=True)
class Batch:
    """Input of a model: the sequence and, for each modality, its inputs, their features or their visual tokens.

    Attributes:
        sequence: ids, labels and places of the images.
        images: by modality, in the order of its spans: `m c H W`, or a tuple of `c H W` where sizes differ.
        features: by modality, cached encoder tokens `m n e` in place of images.
        visual: by modality, visual tokens `m v d` in place of images, or a tuple of `v d` where they differ in number.
    """

    sequence: Sequence
    images: Mapping[str, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)
    visual: Mapping[str, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)

    def slice(self, start: int, stop: int) -> "Batch":
        """Return the positions `start:stop` of every row, with the inputs of the images in them.

        Raises:
            ValueError: an image would be split.
        """
        numbers: dict[str, list[int]] = {}
        for name in {span.modality for span in self.sequence.image_spans}:
            own = (span for span in self.sequence.image_spans if span.modality == name)
            numbers[name] = [number for number, span in enumerate(own) if span.lies_within(start, stop)]
        found = {name: kept for name, kept in numbers.items() if kept}
        return Batch(
            self.sequence.slice(start, stop),
            {name: _pick(self.images[name], kept) for name, kept in found.items() if name in self.images},
            {name: self.features[name][kept] for name, kept in found.items() if name in self.features},
            {name: _pick(self.visual[name], kept) for name, kept in found.items() if name in self.visual},
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the batch on a device; `non_blocking` as of `Tensor.to`."""
        return Batch(
            self.sequence.to(device, non_blocking=non_blocking),
            *self._map(lambda value: value.to(device, non_blocking=non_blocking)),
        )

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; a DataLoader calls this."""
        return Batch(self.sequence.pin_memory(), *self._map(Tensor.pin_memory))

    def _map(self, change: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor | tuple[Tensor, ...]], ...]:
        """Images, features and visual tokens, changed."""

        def changed(inputs: Mapping[str, Tensor | tuple[Tensor, ...]]) -> dict[str, Tensor | tuple[Tensor, ...]]:
            return {
                name: change(value) if isinstance(value, Tensor) else tuple(change(item) for item in value)
                for name, value in inputs.items()
            }

        return changed(self.images), changed(self.features), changed(self.visual)


def _pick(inputs: Tensor | tuple[Tensor, ...], numbers: list[int]) -> Tensor | tuple[Tensor, ...]:
    return inputs[numbers] if isinstance(inputs, Tensor) else tuple(inputs[number] for number in numbers)
