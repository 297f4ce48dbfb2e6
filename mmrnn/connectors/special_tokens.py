"""Learned special tokens around the tokens of another connector, and tokens for cross-attention."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import require_grid, split_prefix_grid_suffix
from mmrnn.types import Connector, Layout

Part = Callable[[int, int | None], Connector]


class BeginEndTokens(nn.Module, Connector):
    """Tokens of `part` between a learned begin token and a learned end token (boi and eoi of CogVLM)."""

    def __init__(self, in_dim: int, out_dim: int | None = None, *, part: Part):
        super().__init__()
        self.part = part(in_dim, out_dim)
        self.width = self.part.width
        self.begin = nn.Parameter(torch.zeros(1, self.width))
        self.end = nn.Parameter(torch.zeros(1, self.width))

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        self.part.reset()
        nn.init.zeros_(self.begin)
        nn.init.zeros_(self.end)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the inner connector, one token longer at both ends."""
        inner = self.part.layout(layout)
        return replace(inner, prefix=inner.prefix + 1, suffix=inner.suffix + 1)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Connect, then add the begin and end tokens."""
        tokens = self.part(tokens, layout)
        begin, end = (vector.to(tokens).expand(len(tokens), -1, -1) for vector in (self.begin, self.end))
        return torch.cat([begin, tokens, end], dim=1)


class RowSeparators(nn.Module, Connector):
    """Tokens of `part`, with one learned token at the end of each row of patches.

    Fuyu's newline and LLaVA-1.6's `image_newline`, for images of any width.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, part: Part):
        super().__init__()
        self.part = part(in_dim, out_dim)
        self.width = self.part.width
        self.newline = nn.Parameter(torch.randn(self.width) * self.width**-0.5)

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        self.part.reset()
        nn.init.normal_(self.newline).mul_(self.width**-0.5)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the inner connector with one separator a row.

        Raises:
            ValueError: it has no patches, or separators already.
        """
        inner = self.part.layout(layout)
        require_grid(inner, "RowSeparators")
        return replace(inner, separators=1)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Connect, then add a token to the end of each row."""
        inner = None if layout is None else self.part.layout(layout)
        prefix, rows, suffix = split_prefix_grid_suffix(self.part(tokens, layout), inner, "RowSeparators")
        newline = self.newline.to(rows).expand(*rows.shape[:2], 1, -1)
        return torch.cat([prefix, torch.cat([rows, newline], dim=2).flatten(1, 2), suffix], dim=1)


class CrossAttentionTokens(nn.Module, Connector):
    """Tokens of `part` for cross-attention, which fill no slots of the text (Flamingo, arXiv 2204.14198).

    `part` keeps its own output width, because the cross-attention has projections of its own.
    """

    for_cross_attention = True

    def __init__(self, in_dim: int, out_dim: int | None = None, *, part: Part):
        super().__init__()
        self.part = part(in_dim, None)
        self.width = self.part.width

    def weight_root(self) -> str:
        """Path of the inner connector, if it has tensors."""
        return "part" if self.part.state_dict() else ""

    def layout(self, layout: Layout) -> Layout:
        """Layout without slots."""
        return Layout(cross_attention=self.part.layout(layout).tokens)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v e"]:
        """Connect by the inner connector."""
        return self.part(tokens, layout)
