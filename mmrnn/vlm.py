"""The model: pictures are encoded, connected, spliced into the text, and read by a backbone."""

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.splice import check_slots, splice
from mmrnn.types import Backbone, Batch, Connector, Encoder, ImageSpec, Layout, Scan, Sequence, State


class Sense(nn.Module):
    """One kind of input: an encoder, and the connector that hands its tokens to the backbone."""

    def __init__(self, encoder: Encoder, connector: Connector):
        super().__init__()
        self.encoder = encoder
        self.connector = connector

    @property
    def image(self) -> ImageSpec:
        return self.encoder.image

    def layout(self, height: int, width: int) -> Layout:
        """How the visual tokens of a picture of so many pixels lie."""
        return self.connector.layout(self.encoder.layout(height, width))

    def encode(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Features of the encoder, without a graph where the encoder is frozen."""
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.encoder(images)

    def connect(self, features: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Visual tokens; `layout` is that of the features (None: of a picture of the encoder's own size)."""
        return self.connector(features, layout or self.encoder.layout(*self.image.size))


@dataclass(frozen=True)
class Output:
    """What a model made of a batch. `model.head(hidden)` gives the logits."""

    hidden: Float[Tensor, "b t d"]
    state: State
    sequence: Sequence


class VLM(nn.Module):
    """A vision-language model: senses, a backbone, and the order in which the backbone scans pictures.

    `config` is what `mmrnn.build` made it from, and what `save` writes beside its tensors.
    """

    config: Mapping[str, Any] | None = None

    def __init__(self, backbone: Backbone, senses: Mapping[str, Sense], scan: Scan | None = None):
        super().__init__()
        self.backbone = backbone
        self.senses = nn.ModuleDict(senses)
        self.scan = scan

    def forward(self, batch: Batch, state: State | None = None) -> Output:
        """Read a batch, from `state` on.

        Raises:
            ValueError: pictures and slots do not match in number.
        """
        sequence = self.embed(batch)
        hidden, state = self.backbone(sequence, state, self.scan)
        return Output(hidden, state, sequence)

    def embed(self, batch: Batch) -> Sequence:
        """The sequence of a batch with the embeddings of its text and its pictures."""
        sequence = batch.sequence
        check_slots(sequence)
        embeds = self.backbone.embed(sequence.ids.clamp(min=0))
        for name, sense in self.senses.items():
            blocks = tuple(block for block in sequence.blocks if block.sense == name)
            if blocks:
                embeds = splice(embeds, self.see(batch, name, sense), blocks)
        return replace(sequence, embeds=embeds)

    def see(self, batch: Batch, name: str, sense: Sense) -> Float[Tensor, "m v d"]:
        """The visual tokens of one sense, from cached features where the batch brings them."""
        if name in batch.features:
            return sense.connect(batch.features[name])
        if name not in batch.images:
            raise ValueError(f"the text asks for {name} inputs, but the batch brings none")
        images = batch.images[name]
        return sense.connect(sense.encode(images), sense.encoder.layout(*images.shape[-2:]))

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        return self.backbone.head(hidden)

    def save(self, folder: str | Path, *, only: Several[str] | None = None) -> None:
        """Write a checkpoint that `mmrnn.load` opens; what was there stays until the new one is whole.

        Args:
            only: parts (`connector`) or globs of names, where the rest comes from the base that `config` names.

        Raises:
            ValueError: the model was put together by hand, so that there is no configuration to write.
        """
        from mmrnn.checkpoint import save

        if self.config is None:
            raise ValueError("a model that mmrnn.build has not made has no configuration to save; save its state_dict")
        save(folder, self, self.config, only=only)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Publish as `owner/name`; the options are those of `huggingface_hub.ModelHubMixin.push_to_hub`.

        Raises:
            ImportError: `huggingface_hub` is not installed (pip install 'mmrnn[hub]').
        """
        from mmrnn.publish import Published

        return str(Published(self).push_to_hub(name, **options))

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "VLM":
        """The model of a repository or folder; the options are those of `ModelHubMixin.from_pretrained`, and `trusted`.

        Raises:
            ImportError: `huggingface_hub` is not installed (pip install 'mmrnn[hub]').
        """
        from mmrnn.publish import Published

        return Published.from_pretrained(name, **options).model
