"""The model: pictures are encoded, connected, spliced into the text, and read by a backbone."""

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.splice import check_slots, splice
from mmrnn.types import (
    Backbone,
    Batch,
    Connector,
    Encoder,
    Expert,
    ImageSpec,
    Layout,
    Mask,
    Pass,
    Position,
    Scan,
    Sequence,
    State,
)

if TYPE_CHECKING:
    from mmrnn.backbones.hook import Hook


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

    def encode(self, images: Float[Tensor, "m *input"]) -> Float[Tensor, "m n e"]:  # noqa: F821
        """Features of the encoder, without a graph where the encoder is frozen. An image sense reads `m c H W`."""
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.encoder(images)

    def connect(self, features: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Visual tokens; `layout` is that of the features (None: of a picture of the encoder's own size)."""
        return self.connector(features, layout or self.encoder.layout(*self.image.size))


@dataclass(frozen=True)
class Output:
    """What a model made of a batch. `model.head(hidden)` gives the logits.

    `levels` are what every block was given, and the answer of the last one after the norm, where they were asked for.
    An objective that does without the language model finds the batch alone.
    """

    hidden: Float[Tensor, "b t d"] | None
    state: State | None
    sequence: Sequence
    batch: Batch | None = None
    levels: tuple[Float[Tensor, "b t d"], ...] = ()


class Levels(Pass):
    """Another pass, and a record of what every block was given."""

    def __init__(self, inner: Pass):
        self.inner = inner
        self.seen: list[Tensor] = []

    @property
    def memory(self) -> dict[str, Tensor]:
        return self.inner.memory

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        self.seen.append(x)
        return self.inner.before(layer, x)

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.inner.after(layer, x)

    def expert(self, layer: int) -> Expert | None:
        return self.inner.expert(layer)


class VLM(nn.Module):
    """A vision-language model: senses, a backbone, and how the backbone reads what they see.

    `config` is what `mmrnn.build` made it from, and what `save` writes beside its tensors.

    Args:
        scan: the order in which a recurrent backbone reads pictures.
        position, mask: the positions and the masks of a transformer, where they are not its own.
        hook: what is added to the blocks of the backbone.
    """

    config: Mapping[str, Any] | None = None

    def __init__(
        self,
        backbone: Backbone,
        senses: Mapping[str, Sense],
        scan: Scan | None = None,
        *,
        position: Position | None = None,
        mask: Mask | None = None,
        hook: "Hook | None" = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.senses = nn.ModuleDict(senses)
        self.hook = hook
        self.scan, self.position, self.mask = scan, position, mask

    def forward(self, batch: Batch, state: State | None = None, *, levels: bool = False) -> Output:
        """Read a batch, from `state` on.

        Args:
            levels: keep what every block is given.

        Raises:
            ValueError: pictures and slots do not match in number, or the backbone shows no levels.
        """
        sequence = self.embed(batch)
        if not levels:
            return Output(*self.read(sequence, state), sequence, batch)
        watch = Levels(Pass() if self.hook is None else self.hook.begin(sequence, state))
        hidden, state = self.read(sequence, state, watch)
        if not watch.seen:
            raise ValueError(f"{type(self.backbone).__name__} does not show what its blocks are given")
        return Output(hidden, state, sequence, batch, (*watch.seen, hidden))

    def read(
        self, sequence: Sequence, state: State | None = None, hook: Pass | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """What the backbone makes of a sequence whose pictures are embedded, from `state` on.

        Args:
            hook: a pass to take instead of that of the model's hook.
        """
        start = None if state is None else state.shared.get("next")
        if self.position is not None and (places := self.position(sequence, start)) is not None:
            sequence = replace(sequence, positions=places)
        if self.mask is not None and sequence.ids.shape[1] > 1 and (seen := self.mask(sequence)) is not None:
            sequence = replace(sequence, visible=seen)
        if hook is None and self.hook is not None:
            hook = self.hook.begin(sequence, state)
        if hook is None:
            return self.backbone(sequence, state, self.scan)
        hidden, after = self.backbone(sequence, state, self.scan, hook)
        return hidden, State(after.layers, {**after.shared, **hook.memory})

    def embed(self, batch: Batch) -> Sequence:
        """The sequence of a batch with the embeddings of its text and its pictures."""
        sequence = batch.sequence
        check_slots(sequence)
        embeds = self.backbone.embed(sequence.ids.clamp(min=0))
        media = None
        for name, sense in self.senses.items():
            blocks = tuple(block for block in sequence.blocks if block.sense == name)
            if not blocks:
                continue
            visual = self.see(batch, name, sense)
            if not blocks[0].layout.beside:
                embeds = splice(embeds, visual, blocks)
            elif media is None and isinstance(visual, Tensor):
                media = visual
            else:
                raise ValueError(
                    f"the tokens of {name} stand beside the text: one sense may, with pictures of one size"
                )
        return replace(sequence, embeds=embeds, media=media)

    def see(self, batch: Batch, name: str, sense: Sense) -> Float[Tensor, "m v d"] | list[Float[Tensor, "_ d"]]:
        """The visual tokens of one sense, from cached features where the batch brings them.

        Pictures of several sizes are answered one by one.
        """
        if name in batch.features:
            return sense.connect(batch.features[name])
        if name not in batch.images:
            raise ValueError(f"the text asks for {name} inputs, but the batch brings none")
        images = batch.images[name]
        if isinstance(images, Tensor):
            return sense.connect(sense.encode(images), sense.encoder.layout(*images.shape[-2:]))
        visual: list[Tensor] = [images[0]] * len(images)
        for size in {image.shape for image in images}:
            which = [index for index, image in enumerate(images) if image.shape == size]
            alike = torch.stack([images[index] for index in which])
            seen = sense.connect(sense.encode(alike), sense.encoder.layout(*size[-2:]))
            for index, tokens in zip(which, seen, strict=True):
                visual[index] = tokens
        return visual

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
