"""Compression of visual tokens by recurrent blocks (VisualRWKV v7.03)."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.types import SLOT, Backbone, Connector, ImageSpan, Layout, PositiveInt, Scan, Sequence


class TokenCompressor(nn.Module, Connector):
    """Tokens of `part`, read by recurrent blocks as one sequence and pooled to a number that no image changes.

    The blocks are those of a language model without embedding and head, such as `RWKV7` with `vocab` 0, in the width
    of the language model and begun as its first blocks (the visual token compressor of VisualRWKV v7.03). Each image is
    pooled over its own tokens; upstream also pools over the padding in front of shorter ones.

    Args:
        part: connector in front of the blocks.
        blocks: called with `width`.
        scan: order in which each block reads the tokens; upstream's is bidirectional.
        tokens: of an image; None: as `reduction` says.
        reduction: tokens in front of the blocks for each one behind them, without `tokens` (v7.04).
        pool: `mean` averages windows that cover all tokens, `step` takes tokens at equal distances, up to the last one.
        inherit: begin as the first blocks of the language model, and as its last norm.

    Raises:
        ValueError: the blocks have another width than `part`.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        part: Callable[[int, int | None], Connector],
        blocks: Callable[..., Backbone],
        scan: Scan,
        tokens: PositiveInt | None = 256,
        reduction: PositiveInt = 1,
        pool: Literal["mean", "step"] = "mean",
        inherit: bool = True,
    ):
        super().__init__()
        self.part = part(in_dim, out_dim)
        self.width = self.part.width
        self.blocks = blocks(width=self.width)
        if self.blocks.width != self.width:
            raise ValueError(f"the blocks have the width {self.blocks.width}, and the part in front {self.width}")
        self.scan, self.tokens, self.reduction, self.pool, self.inherit = scan, tokens, reduction, pool, inherit

    def init_from(self, backbone: Backbone) -> None:
        """Copy the first blocks and the last norm of the backbone.

        Raises:
            ValueError: the backbone has no such blocks.
        """
        if not self.inherit:
            return
        source, own = backbone.state_dict(), self.blocks.state_dict()
        if other := [name for name, value in own.items() if name not in source or source[name].shape != value.shape]:
            raise ValueError(
                f"its blocks cannot begin as the first of {type(backbone).__name__}, which has no {other[0]} of the "
                f"shape {tuple(own[other[0]].shape)}; choose `blocks` of its kind and sizes, or connector.inherit=false"
            )
        if not any(source[name].is_meta for name in own):  # else the caller loads the whole model
            self.blocks.load_state_dict({name: source[name] for name in own})

    def layout(self, layout: Layout) -> Layout:
        """Layout of the pooled tokens: one row."""
        return Layout(rows=1, cols=self._count(self.part.layout(layout).tokens))

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Connect, read the tokens of each image as a sequence, and pool them."""
        return self.pooled(self.read(self.part(tokens, layout)))

    def read(self, tokens: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d"]:
        """Run the blocks over the tokens of each image."""
        rows, number, _ = tokens.shape
        spans = tuple(ImageSpan(row, 0, Layout(rows=1, cols=number)) for row in range(rows))
        ids = torch.full((rows, number), SLOT, device=tokens.device)
        hidden, _ = self.blocks(Sequence(ids, spans, embeds=tokens), scan=self.scan)
        return hidden

    def pooled(self, tokens: Float[Tensor, "m n d"]) -> Float[Tensor, "m v d"]:
        """Pool the tokens of each image."""
        number, count = tokens.shape[1], self._count(tokens.shape[1])
        if self.pool == "mean":
            return F.adaptive_avg_pool1d(tokens.mT, count).mT
        return tokens[:, :: max(number // count, 1)][:, -count:]

    def _count(self, number: int) -> int:
        """Number of pooled tokens of so many."""
        wanted = -(-number // self.reduction) if self.tokens is None else self.tokens
        return wanted if self.pool == "mean" else min(wanted, number)
