"""Gated cross-attention to images that stand beside the text (Flamingo, arXiv 2204.14198)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmrnn.backbones.hook import HookModule
from mmrnn.layers.feed_forward import FeedForward
from mmrnn.layers.latent_attention import LatentAttention
from mmrnn.types import Backbone, BlockHooks, Sequence, State


class GatedBlock(LatentAttention):
    """x + tanh(gate) * attention(norm(x), image), then x + tanh(gate) * mlp(x), with both gates zero at first."""

    def __init__(self, width: int, media: int, heads: int, head_size: int):
        super().__init__(width, media, heads, head_size)
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Parameter(torch.zeros(1))
        self.mlp = FeedForward(width)
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self, x: Float[Tensor, "b t d"], bank: Float[Tensor, "b s e"] | None, mask: Bool[Tensor, "b t s"] | None
    ) -> Float[Tensor, "b t d"]:
        if bank is not None:
            x = x + self.gate.tanh() * self.cross_attend(self.norm(x), bank, mask)
        return x + self.mlp_gate.tanh() * self.mlp(x)

    def cross_attend(
        self, x: Float[Tensor, "b t d"], bank: Float[Tensor, "b s e"], mask: Bool[Tensor, "b t s"]
    ) -> Float[Tensor, "b t d"]:
        """Attend to the image tokens that `mask` allows; positions without any get zeros."""
        visible = mask.any(-1, keepdim=True)
        # Fully masked rows would be NaN after softmax: attend everywhere, then zero the output.
        return self.attend(x, bank, (mask | ~visible)[:, None]) * visible


class CrossAttentionHooks(BlockHooks):
    """The images of one sequence, and which of them each position may look at."""

    def __init__(self, blocks: nn.ModuleDict, sequence: Sequence, state: State | None, every: bool = False):
        self.blocks, self.every = blocks, every
        shared = {} if state is None else state.shared
        self.bank = gather_images(sequence, shared.get("media"))
        if self.bank is not None:
            self.visible = visible(sequence, self.bank.shape[1], shared.get("media_seen"), every)
            self.flat, self.mask = self.bank.flatten(1, 2), self.visible.repeat_interleave(self.bank.shape[2], dim=2)

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        name = str(layer)
        if name not in self.blocks:
            return x
        if self.bank is None:
            return self.blocks[name](x, None, None)
        return self.blocks[name](x, self.flat.to(x.dtype), self.mask)

    @property
    def state(self) -> dict[str, Tensor]:
        """The images that what comes next may look at, `b k v e`, and whether each row has them, `b k`."""
        if self.bank is None:
            return {}
        seen = self.visible[:, -1]
        if self.every:
            return {"media": self.bank, "media_seen": seen}
        rows = torch.arange(len(seen), device=seen.device)
        return {"media": self.bank[rows, seen.int().argmax(1)][:, None], "media_seen": seen.any(1, keepdim=True)}


class GatedCrossAttention(HookModule):
    """Before every `every`-th block the text looks at its latest image, which fills no slots (connector `CrossAttentionTokens`).

    With both gates at zero the backbone is what it was. Text before the first image looks at none.

    Args:
        every: 1 before each block; n before the blocks n, 2n, ... counted from one.
        images: `latest` looks at the last image before the text, `all` at every one before it (OpenFlamingo has
            both); the state grows with them.
    """

    needs_cross_attention_tokens = True

    def __init__(
        self,
        backbone: Backbone,
        media: int,
        *,
        every: int = 4,
        heads: int = 8,
        head_size: int = 64,
        images: Literal["latest", "all"] = "latest",
    ):
        super().__init__(backbone)
        self.images = images
        depth = backbone.depth
        if not 1 <= every <= depth:
            raise ValueError(f"every ({every}) must lie between 1 and the depth of the backbone ({depth})")
        self.blocks = nn.ModuleDict(
            {
                str(layer): GatedBlock(backbone.width, media, heads, head_size)
                for layer in range(depth)
                if (layer + 1) % every == 0
            }
        )

    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        return CrossAttentionHooks(self.blocks, sequence, state, self.images == "all")


def visible(sequence: Sequence, images: int, carried: Bool[Tensor, "b k"] | None, every: bool) -> Bool[Tensor, "b t p"]:
    """Which images beside the text each position may look at: those of its row and segment that stand before it.

    Args:
        images: the most that a row has, those of the state included.
        carried: which of the state's images each row has seen; they come first.
        every: all of them; else the latest alone.
    """
    b, t = sequence.ids.shape
    seen = torch.zeros(b, t, images, dtype=torch.bool, device=sequence.ids.device)
    known = 0 if carried is None else carried.shape[1]
    if known:
        seen[..., :known] = carried[:, None]
    count = [known] * b
    for block in sorted((one for one in sequence.image_spans if one.layout.cross_attention), key=lambda one: one.start):
        row, number = seen[block.sample, block.start :], count[block.sample]
        if not every:
            row[:, :number] = False
        segments = None if sequence.segments is None else sequence.segments[block.sample, block.start :]
        # An image does not reach into another segment.
        row[:, number] = True if segments is None else segments == segments[0]
        count[block.sample] += 1
    return seen


def gather_images(sequence: Sequence, before: Float[Tensor, "b k v e"] | None) -> Float[Tensor, "b p v e"] | None:
    """The images beside each row, those of the state first; rows with fewer of them are filled up."""
    rows: list[list[Tensor]] = [[] if before is None else [*before[row]] for row in range(len(sequence.ids))]
    beside = [block for block in sequence.image_spans if block.layout.cross_attention]
    for index in sorted(range(len(beside)), key=lambda index: (beside[index].start, index)):
        rows[beside[index].sample].append(sequence.media[index])
    most = max(map(len, rows))
    if not most:
        return None
    some = next(image for row in rows for image in row)
    return torch.stack([torch.stack([*row, *[torch.zeros_like(some)] * (most - len(row))]) for row in rows])
