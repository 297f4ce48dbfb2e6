"""Learned vectors around the tokens of another connector, and tokens that stand beside the text."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import check_rows, split_prefix_grid_suffix
from mmrnn.types import Connector, Layout

Part = Callable[[int, int | None], nn.Module]


class BeginEndTokens(nn.Module, Connector):
    """The tokens of `part` between a vector that begins and one that ends the image (CogVLM's boi and eoi)."""

    def __init__(self, in_dim: int, out_dim: int | None = None, *, part: Part):
        super().__init__()
        self.part = part(in_dim, out_dim)
        self.width = self.part.width
        self.begin = nn.Parameter(torch.zeros(1, self.width))
        self.end = nn.Parameter(torch.zeros(1, self.width))

    def layout(self, layout: Layout) -> Layout:
        inner = self.part.layout(layout)
        return replace(inner, prefix=inner.prefix + 1, suffix=inner.suffix + 1)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        tokens = self.part(tokens, layout)
        begin, end = (vector.to(tokens).expand(len(tokens), -1, -1) for vector in (self.begin, self.end))
        return torch.cat([begin, tokens, end], dim=1)


class RowSeparators(nn.Module, Connector):
    """The tokens of `part`, each row of patches closed by one learned vector.

    Fuyu's newline and LLaVA-1.6's `image_newline`: with them a row can be told from the next one in images of any
    width.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, part: Part):
        super().__init__()
        self.part = part(in_dim, out_dim)
        self.width = self.part.width
        self.newline = nn.Parameter(torch.randn(self.width) * self.width**-0.5)

    def layout(self, layout: Layout) -> Layout:
        inner = self.part.layout(layout)
        check_rows(inner, "RowSeparators")
        return replace(inner, separators=1)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        inner = None if layout is None else self.part.layout(layout)
        prefix, rows, suffix = split_prefix_grid_suffix(self.part(tokens, layout), inner, "RowSeparators")
        newline = self.newline.to(rows).expand(*rows.shape[:2], 1, -1)
        return torch.cat([prefix, torch.cat([rows, newline], dim=2).flatten(1, 2), suffix], dim=1)


class CrossAttentionTokens(nn.Module, Connector):
    """The tokens of `part` fill no slots of the text: they stand beside it, to be read by cross-attention (Flamingo).

    The width is what `part` makes of it by itself: the cross-attention has projections of its own.
    """

    for_cross_attention = True

    def __init__(self, in_dim: int, out_dim: int | None = None, *, part: Part):
        super().__init__()
        self.part = part(in_dim, None)
        self.width = self.part.width

    def weight_root(self) -> str:
        """The inner connector, where it has tensors."""
        return "part" if self.part.state_dict() else ""

    def layout(self, layout: Layout) -> Layout:
        return Layout(cross_attention=self.part.layout(layout).tokens)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v e"]:
        return self.part(tokens, layout)
