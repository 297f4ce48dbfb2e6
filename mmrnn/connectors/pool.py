"""Average pooling of patches."""

from dataclasses import replace
from math import isqrt
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.connectors.grid import require_grid, require_same_width, split_prefix_grid_suffix
from mmrnn.types import Bounds, Connector, Layout, PositiveInt


class Pool(nn.Module, Connector):
    """Average pooling of the patches to about `grid` x `grid` (`grid_size` of VisualRWKV, arXiv 2406.13362).

    Tokens outside the grid (CLS) are kept. Window and stride are floor(side / grid), so that a grid of 5 makes 6 tokens
    of 24 patches; patches that fill no window are dropped.

    Args:
        grid: tokens a side; -1: all patches, 0: none.

    Raises:
        ValueError: `grid` is below -1, or another width is asked for.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, grid: Annotated[int, Bounds(ge=-1)]):
        super().__init__()
        if grid < -1:
            raise ValueError(f"grid ({grid}) must be -1 (all patches), 0 (none of them) or a number of cells a side")
        self.width = require_same_width("Pool", in_dim, out_dim)
        self.grid = grid

    def window(self, layout: Layout) -> tuple[int, int] | None:
        """Height and width of the pooling window in patches; None where no patch is kept.

        Raises:
            ValueError: the patches are fewer than `grid` a side, or no token would be left.
        """
        require_grid(layout, "Pool")
        if self.grid == 0 and not layout.prefix + layout.suffix:
            raise ValueError("grid (0) keeps the CLS token only, but there is none; let the encoder keep it")
        if self.grid > min(layout.rows, layout.cols):
            raise ValueError(f"grid ({self.grid}) must not exceed the {layout.rows} x {layout.cols} patches")
        return (layout.rows // self.grid, layout.cols // self.grid) if self.grid else None

    def layout(self, layout: Layout) -> Layout:
        """Layout of the pooled tokens.

        Raises:
            ValueError: see `window`.
        """
        if self.grid == -1:
            return layout
        window = self.window(layout)
        if window is None:
            return replace(layout, rows=0, cols=0)
        return replace(layout, rows=layout.rows // window[0], cols=layout.cols // window[1])

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Average the patches of each window."""
        if self.grid == -1:
            return tokens
        prefix, patches, suffix = split_prefix_grid_suffix(tokens, layout, "Pool")
        window = self.window(layout)
        if window is None:
            return torch.cat([prefix, suffix], dim=1)
        cells = F.avg_pool2d(patches.movedim(-1, 1), window)  # m d rows cols
        return torch.cat([prefix, cells.flatten(2).mT, suffix], dim=1)


class AdaptivePool(nn.Module, Connector):
    """Average pooling of the patches to a square of about `tokens` tokens, in the windows of torch's adaptive pooling.

    The side is the square root of `tokens`, rounded down (`num_token_per_image` of VisualRWKV-7). Windows overlap where
    it does not divide that of the patches, and none is dropped. Tokens outside the grid are kept.

    Args:
        tokens: in place of the patches.

    Raises:
        ValueError: another width is asked for.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, tokens: PositiveInt = 256):
        super().__init__()
        self.width = require_same_width("AdaptivePool", in_dim, out_dim)
        self.side = isqrt(tokens)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the pooled tokens.

        Raises:
            ValueError: there is no grid.
        """
        require_grid(layout, "AdaptivePool")
        return replace(layout, rows=self.side, cols=self.side)

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Average the patches of each window."""
        prefix, patches, suffix = split_prefix_grid_suffix(tokens, layout, "AdaptivePool")
        cells = F.adaptive_avg_pool2d(patches.movedim(-1, 1), self.side)  # m d rows cols
        return torch.cat([prefix, cells.flatten(2).mT, suffix], dim=1)


class MeanPool(nn.Module, Connector):
    """Mean of all tokens, CLS included (`grid_size` 1 of VisualRWKV-5.0)."""

    def __init__(self, in_dim: int, out_dim: int | None = None):
        super().__init__()
        self.width = require_same_width("MeanPool", in_dim, out_dim)

    def layout(self, layout: Layout) -> Layout:
        """One token."""
        return Layout(prefix=1)

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m 1 d"]:
        """Average all tokens."""
        return tokens.mean(dim=1, keepdim=True)
