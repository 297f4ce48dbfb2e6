"""Token sequence and batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrnn.types.layout import ImageSpan

SLOT = -200
"""The id of a position that a visual token will fill (the placeholder id of VisualRWKV and LLaVA)."""

IGNORE = -100
"""The label of a position without a target."""


@dataclass(frozen=True)
class Sequence:
    """A batch of rows on its way through a backbone, with every fact that a part on the way may ask for.

    `segments` tells which sample a position belongs to where a row holds several of them (packing) or starts
    with padding; a backbone starts anew at each change. `positions` are the position ids for backbones that
    want them (several axes for some); None counts from the start of the segment. `visible` tells which positions of
    this sequence each may see; None: those before it and itself. `media` are the tokens beside the text, one row
    for every block without slots.
    """

    ids: Int[Tensor, "b t"]
    image_spans: tuple[ImageSpan, ...] = ()
    embeds: Float[Tensor, "b t d"] | None = None
    labels: Int[Tensor, "b t"] | None = None
    segments: Int[Tensor, "b t"] | None = None
    positions: Int[Tensor, "b t *axes"] | None = None
    visible: Bool[Tensor, "b t t"] | None = None
    media: Float[Tensor, "m v e"] | None = None

    @property
    def visual(self) -> Tensor:
        """True where a visual token stands, `b t`."""
        return self.ids == SLOT

    def slice(self, start: int, stop: int) -> "Sequence":
        """The positions `start:stop` of every row.

        Raises:
            ValueError: an image would be cut in two (a scan needs the whole of it).
        """
        blocks, media, beside = [], [], -1
        for block in self.image_spans:
            beside += bool(block.layout.cross_attention)
            if block.start >= start and block.stop <= stop and block.start < stop:
                blocks.append(replace(block, start=block.start - start))
                media += [beside] if block.layout.cross_attention else []
            elif block.start < stop and block.stop > start:
                raise ValueError(
                    f"the cut {start}:{stop} splits the image at {block.start}:{block.stop} of row {block.sample}; "
                    "cut before or after it"
                )
        fields = ("ids", "embeds", "labels", "segments", "positions")
        parts = {name: value[:, start:stop] for name in fields if (value := getattr(self, name)) is not None}
        if self.visible is not None:
            parts["visible"] = self.visible[:, start:stop, start:stop]
        if self.media is not None:
            parts["media"] = self.media[media]
        return replace(self, image_spans=tuple(blocks), **parts)

    def to(self, device: torch.device | str) -> "Sequence":
        fields = ("ids", "embeds", "labels", "segments", "positions", "visible", "media")
        return replace(
            self, **{name: value.to(device) for name in fields if (value := getattr(self, name)) is not None}
        )


@dataclass(frozen=True)
class Batch:
    """What a model reads at once: the sequence and, for each modality, its images or their cached features.

    The m images of a modality stand in the order of its blocks. Images of several sizes come as a tuple.
    """

    sequence: Sequence
    images: Mapping[str, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)  # modality -> m c H W
    features: Mapping[str, Tensor] = field(default_factory=dict)  # modality -> m n e

    def to(self, device: torch.device | str) -> "Batch":
        images = {name: _to(value, device) for name, value in self.images.items()}
        features = {name: value.to(device) for name, value in self.features.items()}
        return Batch(self.sequence.to(device), images, features)


def _to(value: Tensor | tuple[Tensor, ...], device: torch.device | str) -> Tensor | tuple[Tensor, ...]:
    return value.to(device) if isinstance(value, Tensor) else tuple(item.to(device) for item in value)
