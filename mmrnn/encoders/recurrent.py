"""Recurrent blocks as vision encoder (VisualRWKV v7.10)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import SLOT, Backbone, Encoder, ImageSpan, Layout, Scan, Sequence


class RecurrentEncoder(nn.Module, Encoder):
    """Tokens of another encoder, read by recurrent blocks in an order of the patches.

    The blocks are those of a language model without embedding and head, such as `RWKV7` with `vocab` 0. Behind a
    projection of patches (`PatchEmbed` without positions and norm) they are the encoder of VisualRWKV v7.10.

    Args:
        tower: a built encoder.
        blocks: built, as wide as the tower.
        scan: order in which each block reads the patches; upstream's is forward.

    Raises:
        ValueError: the widths differ.
    """

    def __init__(self, *, tower: Encoder, blocks: Backbone, scan: Scan):
        super().__init__()
        if blocks.width != tower.width:
            raise ValueError(f"the blocks have the width {blocks.width}, and the tower in front of them {tower.width}")
        self.tower, self.blocks, self.scan = tower, blocks, scan
        self.width, self.image = tower.width, tower.image

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens: that of the tower."""
        return self.tower.layout(height, width)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode images of one size."""
        layout, tokens = self.layout(*images.shape[-2:]), self.tower(images)
        spans = tuple(ImageSpan(row, 0, layout) for row in range(len(tokens)))
        ids = torch.full(tokens.shape[:2], SLOT, device=tokens.device)
        hidden, _ = self.blocks(Sequence(ids, spans, embeds=tokens), scan=self.scan)
        return hidden
