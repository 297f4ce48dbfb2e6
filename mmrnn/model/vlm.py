"""Vision-language model: images are encoded, connected, spliced into the text, and read by a backbone."""

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.model.splice import check_slots, splice
from mmrnn.model.state_origin import state_origin
from mmrnn.types import (
    Backbone,
    Batch,
    BlockHooks,
    Composite,
    Connector,
    Embedder,
    Encoder,
    Expert,
    Hook,
    ImageSpec,
    Layout,
    Mask,
    ModalitySpec,
    Objective,
    Output,
    Position,
    Scan,
    Sequence,
    State,
)


class Modality(nn.Module, Composite, ModalitySpec):
    """An encoder and a connector for one kind of input."""

    def __init__(self, encoder: Encoder, connector: Connector):
        super().__init__()
        self.encoder = encoder
        self.connector = connector

    @property
    def image(self) -> ImageSpec:
        """Specification of the encoder's input."""
        return self.encoder.image

    def layout(self, height: int, width: int) -> Layout:
        """Return the layout of the visual tokens of an image of `height` x `width` pixels."""
        return self.connector.layout(self.encoder.layout(height, width))

    def weight_parts(self) -> dict[str, nn.Module]:
        """Return encoder and connector, where they have tensors."""
        return {name: part for name, part in self.named_children() if part.state_dict()}

    def encode(self, images: Float[Tensor, " m *input"]) -> Float[Tensor, "m n e"]:
        """Encode inputs of one size (images: `m c H W`), without a graph where the encoder is frozen."""
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.encoder(images)

    def connect(self, features: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Map encoder tokens to visual tokens.

        Args:
            features: encoder tokens.
            layout: of the encoder tokens; None: that of an image of the encoder's own size.
        """
        return self.connector(features, layout or self.encoder.layout(*self.image.size))


class HiddenStateRecorder(BlockHooks):
    """Other block hooks, with a record of the input of every block.

    Attributes:
        inputs: of the blocks, in order.
    """

    def __init__(self, inner: BlockHooks):
        self.inner = inner
        self.inputs: list[Tensor] = []

    @property
    def state(self) -> dict[str, Tensor]:
        """Tensors that the inner hooks keep."""
        return self.inner.state

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Record the input of block `layer`, then change it."""
        self.inputs.append(x)
        return self.inner.before(layer, x)

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Change the output of block `layer`."""
        return self.inner.after(layer, x)

    def expert(self, layer: int) -> Expert | None:
        """Return the expert weights of block `layer`, or None."""
        return self.inner.expert(layer)

    def keep_shift(self, layer: int, shift: Float[Tensor, "b d"]) -> None:
        """Hand the last position behind an expert's norm to the inner hooks."""
        self.inner.keep_shift(layer, shift)


class VLM(nn.Module, Composite):
    """Vision-language model: modalities, a backbone, and the policies by which the backbone reads visual tokens.

    Args:
        backbone: the language model.
        modalities: by name; `image` encodes the images of a sample.
        scan: order in which a recurrent backbone reads the patches of an image; None: row-major.
        position: position ids of a transformer; None: its own.
        mask: attention mask of a transformer; None: causal.
        hook: addition to the blocks of the backbone.

    Attributes:
        config: configuration that `mmrnn.build` made the model from; `mmrnn.save` writes it next to the tensors.
        load_notes: tensors that `mmrnn.build` left out, resampled or filled in while it loaded weights, in words.
        objective: loss that it is trained with, where that has parameters; None on a model that is not being trained.
        embedder: heads of the contrastive objective that it was trained with, which a checkpoint brings; None: none.
        state_origin: backbone, scan and hook that its states carry; None: the backbone does not say its own.
    """

    config: Mapping[str, Any] | None = None
    load_notes: tuple[str, ...] = ()

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
        self.state_origin = state_origin(backbone, scan, hook)
        self.objective: Objective | None = None
        self.embedder: Embedder | None = None

    def weight_parts(self) -> dict[str, nn.Module]:
        """Return backbone, encoders, connectors and hook, where they have tensors."""
        found: dict[str, nn.Module] = {"backbone": self.backbone}
        for name, modality in self.modalities.items():
            found |= {f"modalities.{name}.{path}": part for path, part in modality.weight_parts().items()}
        found |= {} if self.hook is None else {"hook": self.hook}
        return {path: part for path, part in found.items() if part.state_dict()}

    def find_embedder(self) -> Embedder | None:
        """Return what embeds images and texts: its own embedder, or that of the objective; None: there is none."""
        if self.embedder is not None:
            return self.embedder
        return None if self.objective is None else self.objective.embedder()

    def forward(
        self,
        batch: Batch,
        state: State | None = None,
        *,
        output_hidden_states: bool = False,
        blank: Batch | None = None,
    ) -> Output:
        """Run the model over a batch.

        Args:
            batch: ids, places of the images, and images or their cached features.
            state: to continue from; None: the initial state.
            output_hidden_states: fill `Output.hidden_states` with the input of every block.
            blank: see `embed`.

        Raises:
            ValueError: images and slots differ in number, or the backbone does not expose the inputs of its blocks.
        """
        sequence = self.embed(batch, blank)
        if not output_hidden_states:
            return Output(*self.run_backbone(sequence, state), sequence, batch)
        recorder = HiddenStateRecorder(BlockHooks() if self.hook is None else self.hook.start(sequence, state))
        hidden, state = self.run_backbone(sequence, state, recorder)
        if not recorder.inputs:
            raise ValueError(f"{type(self.backbone).__name__} does not expose the inputs of its blocks")
        return Output(hidden, state, sequence, batch, (*recorder.inputs, hidden))

    def run_backbone(
        self, sequence: Sequence, state: State | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the backbone over an embedded sequence, with the model's scan, positions, mask and hook.

        Args:
            sequence: with `embeds`.
            state: to continue from; None: the initial state.
            hook: used in place of the callbacks of the model's hook.

        Returns:
            Hidden states after the last norm, and the state after the last position.

        Raises:
            ValueError: the state has another number of rows, or belongs to another backbone, scan or hook.
        """
        if state is not None:
            if state.origin is not self.state_origin:
                state.check_origin(self.state_origin)
            else:  # which the backbone knows by its own
                state = replace(state, origin=self.backbone.state_origin)
            state = self.backbone.resume(state, len(sequence.ids))
        start = None if state is None else state.shared.get("next_position")
        if self.position is not None and (positions := self.position(sequence, start)) is not None:
            sequence = replace(sequence, positions=positions)
        if self.mask is not None and sequence.ids.shape[1] > 1 and (mask := self.mask(sequence)) is not None:
            sequence = replace(sequence, attention_mask=mask)
        if hook is None and self.hook is not None:
            hook = self.hook.start(sequence, state)
        if hook is None:
            hidden, state = self.backbone(sequence, state, self.scan)
            return hidden, replace(state, origin=self.state_origin)
        hidden, state = self.backbone(sequence, state, self.scan, hook)
        return hidden, replace(state, shared={**state.shared, **hook.state}, origin=self.state_origin)

    def embed(self, batch: Batch, blank: Batch | None = None) -> Sequence:
        """Return the sequence of a batch with the embeddings of text and images.

        Args:
            batch: ids, places of the images, and images or their cached features.
            blank: one input of every modality. Those of which the batch has none are encoded and multiplied by zero,
                so that data-parallel processes use the same parameters in the same order.

        Raises:
            ValueError: images and slots differ in number, or several modalities or image sizes use cross-attention.
        """
        sequence = batch.sequence
        check_slots(sequence)
        embeds = self.backbone.embed(sequence.ids.clamp(min=0))
        media = None
        for name, modality in self.modalities.items():
            spans = tuple(span for span in sequence.image_spans if span.modality == name)
            if not spans:
                if blank is not None:
                    embeds = embeds + 0.0 * self.encode_images(blank, name, modality).sum()
                continue
            visual = self.encode_images(batch, name, modality)
            if not spans[0].layout.cross_attention:
                embeds = splice(embeds, visual, spans)
            elif media is None and isinstance(visual, Tensor):
                media = visual
            else:
                raise ValueError(f"{name}: only one modality with images of one size can be read by cross-attention")
        return replace(sequence, embeds=embeds, media=media)

    def encode_images(
        self, batch: Batch, name: str, modality: Modality
    ) -> Float[Tensor, "m v d"] | Several[Float[Tensor, "_ d"]]:
        """Return the visual tokens of one modality: those of the batch, or made from its features or its images.

        Images of different sizes are encoded in groups of one size, and returned as a list of `v d`.

        Raises:
            ValueError: the batch has no inputs of the modality.
        """
        if name in batch.visual:
            return batch.visual[name]
        if name in batch.features:
            return modality.connect(batch.features[name])
        if name not in batch.images:
            raise ValueError(f"the text has slots for {name} inputs, but the batch has none")
        images = batch.images[name]
        if isinstance(images, Tensor):
            return modality.connect(modality.encode(images), modality.encoder.layout(*images.shape[-2:]))
        visual: list[Tensor] = [images[0]] * len(images)
        for size in {image.shape for image in images}:
            indices = [index for index, image in enumerate(images) if image.shape == size]
            group = torch.stack([images[index] for index in indices])
            tokens = modality.connect(modality.encode(group), modality.encoder.layout(*size[-2:]))
            for index, one in zip(indices, tokens, strict=True):
                visual[index] = one
        return visual

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Compute the logits of hidden states."""
        return self.backbone.head(hidden)
