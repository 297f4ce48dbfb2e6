"""Fixed 2-D positions with a learned scale."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import require_grid, require_same_width, split_prefix_grid_suffix
from mmrnn.layers.sincos import sincos_2d
from mmrnn.types import Connector, Layout, PositiveFloat


class SinCosPositions(nn.Module, Connector):
    """Fixed 2-D sine and cosine positions (arXiv 2104.02057), added to the patches with a learned scale per channel.

    For convolutional feature maps, which carry little information about positions; vision transformers need none of
    it. Tokens outside the grid are unchanged.

    Args:
        scale: initial scale of every channel.

    Raises:
        ValueError: the width is no multiple of 4, or another width is asked for.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, scale: PositiveFloat = 0.5):
        super().__init__()
        if in_dim % 4:
            raise ValueError(f"width ({in_dim}) must be a multiple of 4 for 2-D positions")
        self.width = require_same_width("SinCosPositions", in_dim, out_dim)
        self.initial_scale = scale
        self.scale = nn.Parameter(torch.full((in_dim,), scale))

    def reset(self) -> None:
        """Initialise the scale in place."""
        nn.init.constant_(self.scale, self.initial_scale)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens.

        Raises:
            ValueError: there are no patches, or there are row separators.
        """
        require_grid(layout, "SinCosPositions")
        return layout

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Add positions to the patches."""
        prefix, patches, suffix = split_prefix_grid_suffix(tokens, layout, "SinCosPositions")
        patches = patches + relative_positions(*patches.shape[1:]).to(patches) * self.scale
        return torch.cat([prefix, patches.flatten(1, 2), suffix], dim=1)


def relative_positions(rows: int, cols: int, width: int) -> Float[Tensor, "rows cols width"]:
    """Compute a position table with coordinates from 0 to 1, the same for the same place in grids of any size."""
    frequencies = 2.0 ** torch.linspace(0, 5, width // 4) * torch.pi / 2
    return sincos_2d(*((torch.arange(size) + 0.5) / size for size in (rows, cols)), frequencies)
