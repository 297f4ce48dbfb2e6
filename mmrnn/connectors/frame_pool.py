"""Compression of a video over time: the patches of consecutive frames as those of one."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import require_same_width, split_prefix_grid_suffix
from mmrnn.types import Connector, Layout, NonNegativeInt


class FramePool(nn.Module, Connector):
    """Mean of the patches at one place over `rate` consecutive frames (temporal pooling, arXiv 2306.05424).

    Frames lie below one another in the grid, as `FrameEncoder` emits them. What joins patches of one frame (`Merge`,
    `Pool`) comes behind it, when one frame is left.

    Args:
        rate: frames that become one; 0: all of an input.

    Raises:
        ValueError: another width is asked for.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, rate: NonNegativeInt = 0):
        super().__init__()
        self.width = require_same_width("FramePool", in_dim, out_dim)
        self.rate = rate

    def layout(self, layout: Layout) -> Layout:
        """Layout of the frames that are left.

        Raises:
            ValueError: the frames do not divide by the rate, or there are tokens outside the grid.
        """
        rate = self.rate or layout.frames
        if layout.frames % rate:
            raise ValueError(f"rate ({rate}) must divide the {layout.frames} frames of an input; or 0, for all of them")
        if layout.tokens != layout.rows * layout.cols:
            raise ValueError("FramePool cannot keep tokens outside the grid; let the encoder drop its CLS token")
        return replace(layout, rows=layout.rows // rate, frames=layout.frames // rate)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v e"]:
        """Average each place over consecutive frames."""
        _, grid, _ = split_prefix_grid_suffix(tokens, layout, "FramePool", frames=True)
        kept = self.layout(layout).frames
        return grid.unflatten(1, (kept, layout.frames // kept, -1)).mean(2).flatten(1, 3)  # m kept rows cols e
