"""The model: images are encoded, connected, spliced into the text, and read by a backbone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.model.splice import check_slots, splice
from mmrnn.types import (
    Backbone,
    Batch,
    BlockHooks,
    Composite,
    Connector,
    Encoder,
    Expert,
    Hook,
    ImageSpec,
    Layout,
    Mask,
    Output,
    Position,
    Scan,
    Sequence,
    State,
)


class Modality(nn.Module, Composite):
    """One kind of input: an encoder, and the connector that hands its tokens to the backbone."""

    def __init__(self, encoder: Encoder, connector: Connector):
        super().__init__()
        self.encoder = encoder
        self.connector = connector

    @property
    def image(self) -> ImageSpec:
        return self.encoder.image

    def layout(self, height: int, width: int) -> Layout:
        """How the visual tokens of an image of so many pixels lie."""
        return self.connector.layout(self.encoder.layout(height, width))

    def weight_parts(self) -> dict[str, nn.Module]:
        """Encoder and connector, as far as they have tensors."""
        return {name: part for name, part in self.named_children() if part.state_dict()}

    def encode(self, images: Float[Tensor, "m *input"]) -> Float[Tensor, "m n e"]:
        """Features of the encoder, without a graph where the encoder is frozen. An image modality reads `m c H W`."""
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.encoder(images)

    def connect(self, features: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Visual tokens; `layout` is that of the features (None: of an image of the encoder's own size)."""
        return self.connector(features, layout or self.encoder.layout(*self.image.size))


class HiddenStateRecorder(BlockHooks):
    """Another pass, and a record of what every block was given."""

    def __init__(self, inner: BlockHooks):
        self.inner = inner
        self.seen: list[Tensor] = []

    @property
    def state(self) -> dict[str, Tensor]:
        return self.inner.state

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        self.seen.append(x)
        return self.inner.before(layer, x)

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.inner.after(layer, x)

    def expert(self, layer: int) -> Expert | None:
        return self.inner.expert(layer)


class VLM(nn.Module, Composite):
    """A vision-language model: modalities, a backbone, and how the backbone reads what they see.

    `config` is what `mmrnn.build` made it from, and what `save` writes beside its tensors.

    Args:
        scan: the order in which a recurrent backbone reads images.
        position, mask: the positions and the masks of a transformer, where they are not its own.
        hook: what is added to the blocks of the backbone.
    """

    config: Mapping[str, Any] | None = None

    def __init__(
        self,
        backbone: Backbone,
        modalities: Mapping[str, Modality],
        scan: Scan | None = None,
        *,
        position: Position | None = None,
        mask: Mask | None = None,
        hook: Hook | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.modalities = nn.ModuleDict(modalities)
        self.hook = hook
        self.scan, self.position, self.mask = scan, position, mask

    def weight_parts(self) -> dict[str, nn.Module]:
        """Backbone, encoders, connectors and hook, as far as they have tensors."""
        found: dict[str, nn.Module] = {"backbone": self.backbone}
        for name, modality in self.modalities.items():
            found |= {f"modalities.{name}.{path}": part for path, part in modality.weight_parts().items()}
        found |= {} if self.hook is None else {"hook": self.hook}
        return {path: part for path, part in found.items() if part.state_dict()}

    def forward(self, batch: Batch, state: State | None = None, *, output_hidden_states: bool = False) -> Output:
        """Read a batch, from `state` on.

        Args:
            levels: keep what every block is given.

        Raises:
            ValueError: images and slots do not match in number, or the backbone shows no levels.
        """
        sequence = self.embed(batch)
        if not output_hidden_states:
            return Output(*self.run_backbone(sequence, state), sequence, batch)
        watch = HiddenStateRecorder(BlockHooks() if self.hook is None else self.hook.start(sequence, state))
        hidden, state = self.run_backbone(sequence, state, watch)
        if not watch.seen:
            raise ValueError(f"{type(self.backbone).__name__} does not show what its blocks are given")
        return Output(hidden, state, sequence, batch, (*watch.seen, hidden))

    def run_backbone(
        self, sequence: Sequence, state: State | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """What the backbone makes of a sequence whose images are embedded, from `state` on.

        Args:
            hook: a pass to take instead of that of the model's hook.
        """
        start = None if state is None else state.shared.get("next_position")
        if self.position is not None and (places := self.position(sequence, start)) is not None:
            sequence = replace(sequence, positions=places)
        if self.mask is not None and sequence.ids.shape[1] > 1 and (seen := self.mask(sequence)) is not None:
            sequence = replace(sequence, visible=seen)
        if hook is None and self.hook is not None:
            hook = self.hook.start(sequence, state)
        if hook is None:
            return self.backbone(sequence, state, self.scan)
        hidden, after = self.backbone(sequence, state, self.scan, hook)
        return hidden, State(after.layers, {**after.shared, **hook.state})

    def embed(self, batch: Batch) -> Sequence:
        """The sequence of a batch with the embeddings of its text and its images."""
        sequence = batch.sequence
        check_slots(sequence)
        embeds = self.backbone.embed(sequence.ids.clamp(min=0))
        media = None
        for name, modality in self.modalities.items():
            blocks = tuple(block for block in sequence.image_spans if block.modality == name)
            if not blocks:
                continue
            visual = self.encode_images(batch, name, modality)
            if not blocks[0].layout.cross_attention:
                embeds = splice(embeds, visual, blocks)
            elif media is None and isinstance(visual, Tensor):
                media = visual
            else:
                raise ValueError(
                    f"the tokens of {name} stand beside the text: one modality may, with images of one size"
                )
        return replace(sequence, embeds=embeds, media=media)

    def encode_images(
        self, batch: Batch, name: str, modality: Modality
    ) -> Float[Tensor, "m v d"] | list[Float[Tensor, "_ d"]]:
        """The visual tokens of one modality, from cached features where the batch brings them.

        Images of several sizes are answered one by one.
        """
        if name in batch.features:
            return modality.connect(batch.features[name])
        if name not in batch.images:
            raise ValueError(f"the text asks for {name} inputs, but the batch brings none")
        images = batch.images[name]
        if isinstance(images, Tensor):
            return modality.connect(modality.encode(images), modality.encoder.layout(*images.shape[-2:]))
        visual: list[Tensor] = [images[0]] * len(images)
        for size in {image.shape for image in images}:
            which = [index for index, image in enumerate(images) if image.shape == size]
            alike = torch.stack([images[index] for index in which])
            seen = modality.connect(modality.encode(alike), modality.encoder.layout(*size[-2:]))
            for index, tokens in zip(which, seen, strict=True):
                visual[index] = tokens
        return visual

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        return self.backbone.head(hidden)
