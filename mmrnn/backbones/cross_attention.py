"""Gated cross-attention to images that fill no slots of the text (Flamingo, arXiv 2204.14198)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrnn.backbones.hook import HookModule
from mmrnn.layers.feed_forward import FeedForward
from mmrnn.layers.latent_attention import LatentAttention
from mmrnn.types import ANY_SEGMENT, Backbone, BlockHooks, PositiveInt, Sequence, State, reset_layers


class GatedBlock(LatentAttention):
    """x + tanh(gate) * attention(norm(x), images), then x + tanh(mlp_gate) * mlp(x). Both gates start at zero.

    Args:
        width: of the text, `d`.
        media_width: of the visual tokens, `e`.
    """

    def __init__(self, width: int, media_width: int, heads: int, head_size: int):
        super().__init__(width, media_width, heads, head_size)
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Parameter(torch.zeros(1))
        self.mlp = FeedForward(width)
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        nn.init.zeros_(self.gate)
        nn.init.zeros_(self.mlp_gate)

    def forward(
        self, x: Float[Tensor, "b t d"], media: Float[Tensor, "b s e"] | None, mask: Bool[Tensor, "b t s"] | None
    ) -> Float[Tensor, "b t d"]:
        """Attend from the text to the visual tokens in `mask`; without `media` only the MLP runs."""
        if media is not None:
            x = x + self.gate.tanh() * self.cross_attend(self.norm(x), media, mask)
        return x + self.mlp_gate.tanh() * self.mlp(x)

    def cross_attend(
        self, x: Float[Tensor, "b t d"], media: Float[Tensor, "b s e"], mask: Bool[Tensor, "b t s"]
    ) -> Float[Tensor, "b t d"]:
        """Attend to the visual tokens in `mask`; the output is zero at positions with an empty mask."""
        any_key = mask.any(-1, keepdim=True)
        # Fully masked rows would be NaN after softmax: attend everywhere, then zero the output.
        return self.attend(x, media, (mask | ~any_key)[:, None]) * any_key


class CrossAttentionHooks(BlockHooks):
    """Images of one sequence and of its state, and the mask of images that each position attends to.

    Args:
        blocks: gated blocks, by the index of the block that each precedes.
        attend_all: to all images before a position, not the latest alone.
    """

    def __init__(self, blocks: nn.ModuleDict, sequence: Sequence, state: State | None, attend_all: bool = False):
        self.blocks, self.attend_all = blocks, attend_all
        shared = {} if state is None else state.shared
        self.media = gather_media(sequence, shared.get("media"))  # b p v e
        if self.media is not None:
            previous, segment = shared.get("media_mask"), shared.get("segment")
            self.image_mask = media_mask(sequence, self.media.shape[1], previous, attend_all, segment)  # b t p
            self.token_mask = self.image_mask.repeat_interleave(self.media.shape[2], dim=2)
            self.tokens = self.media.flatten(1, 2)

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Run the gated block that precedes block `layer`, if there is one."""
        name = str(layer)
        if name not in self.blocks:
            return x
        if self.media is None:
            return self.blocks[name](x, None, None)
        return self.blocks[name](x, self.tokens.to(x.dtype), self.token_mask)

    @property
    def state(self) -> dict[str, Tensor]:
        """Images that later tokens attend to (`media`, b p v e), and which of them each row has (`media_mask`, b p)."""
        if self.media is None:
            return {}
        last = self.image_mask[:, -1]
        if self.attend_all:
            return {"media": self.media, "media_mask": last.clone()}
        rows = torch.arange(len(last), device=last.device)
        return {"media": self.media[rows, last.int().argmax(1)][:, None], "media_mask": last.any(1, keepdim=True)}


class GatedCrossAttention(HookModule):
    """Flamingo's gated cross-attention (arXiv 2204.14198): text attends to images that fill no slots of it.

    The images come from a connector `CrossAttentionTokens`. With both gates at zero the backbone is unchanged. Text
    before the first image attends to none.

    Args:
        every: insert a gated block before the blocks n, 2n, ... counted from one.
        images: `latest`: attend to the last image before a position; `all`: to all images before it (OpenFlamingo has
            both), which the state then keeps.

    Raises:
        ValueError: `every` is below 1 or above the depth of the backbone.
    """

    needs_cross_attention_tokens = True

    def __init__(
        self,
        backbone: Backbone,
        media_width: int,
        *,
        every: PositiveInt = 4,
        heads: PositiveInt = 8,
        head_size: PositiveInt = 64,
        images: Literal["latest", "all"] = "latest",
    ):
        super().__init__(backbone)
        self.images = images
        depth = backbone.depth
        if not 1 <= every <= depth:
            raise ValueError(f"every ({every}) must lie between 1 and the depth of the backbone ({depth})")
        self.blocks = nn.ModuleDict(
            {
                str(layer): GatedBlock(backbone.width, media_width, heads, head_size)
                for layer in range(depth)
                if (layer + 1) % every == 0
            }
        )

    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        """Collect the images of `sequence` and of `state`."""
        return CrossAttentionHooks(self.blocks, sequence, state, self.images == "all")


def media_mask(
    sequence: Sequence,
    images: int,
    previous: Bool[Tensor, "b k"] | None,
    attend_all: bool,
    segment: Int[Tensor, " b"] | None = None,
) -> Bool[Tensor, "b t p"]:
    """Return the images that each position attends to: those before it in its row and segment.

    Args:
        images: number of images per row, those of the state included.
        previous: images of the state that each row attends to; they come first.
        attend_all: to all of them, not the latest alone.
        segment: that the state of each row ends in; its images belong to no other one.
    """
    b, t = sequence.ids.shape
    mask = torch.zeros(b, t, images, dtype=torch.bool, device=sequence.ids.device)
    carried = 0 if previous is None else previous.shape[1]
    if carried:
        mask[..., :carried] = previous[:, None]
        if segment is not None and sequence.segments is not None:
            segment = segment[:, None]
            mask &= ((sequence.segments == segment) | (segment == ANY_SEGMENT))[..., None]
    count = [carried] * b
    spans = (span for span in sequence.image_spans if span.layout.cross_attention)
    for span in sorted(spans, key=lambda span: span.start):
        row, index = mask[span.sample, span.start :], count[span.sample]
        if not attend_all:
            row[:, :index] = False
        segments = None if sequence.segments is None else sequence.segments[span.sample, span.start :]
        row[:, index] = True if segments is None else segments == segments[0]
        count[span.sample] += 1
    return mask


def gather_media(sequence: Sequence, previous: Float[Tensor, "b k v e"] | None) -> Float[Tensor, "b p v e"] | None:
    """Return the images of each row, those of the state first, zero-padded to one number; None: there are none."""
    rows: list[list[Tensor]] = [[] if previous is None else [*previous[row]] for row in range(len(sequence.ids))]
    spans = [span for span in sequence.image_spans if span.layout.cross_attention]
    for index in sorted(range(len(spans)), key=lambda index: (spans[index].start, index)):
        rows[spans[index].sample].append(sequence.media[index])
    longest = max(map(len, rows))
    if not longest:
        return None
    padding = torch.zeros_like(next(image for row in rows for image in row))
    return torch.stack([torch.stack([*row, *[padding] * (longest - len(row))]) for row in rows])
