"""Where in the image a patch stands, for encoders that hardly tell."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import check_rows, require_same_width, split_prefix_grid_suffix
from mmrnn.types import Connector, Layout


class SinCosPositions(nn.Module, Connector):
    """Adds fixed 2-D sine and cosine positions (arXiv 2104.02057) to the patches, with a learnt scale a channel.

    A convolutional map hardly knows where its cells are; a vision transformer does, and needs none of this. Tokens
    outside the grid stay as they are.

    Args:
        scale: what the scale of every channel starts from.

    Raises:
        ValueError: the width is no multiple of 4, or another width is asked for.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, scale: float = 0.5):
        super().__init__()
        if in_dim % 4:
            raise ValueError(f"width ({in_dim}) must be a multiple of 4 for 2-D positions")
        self.width = require_same_width("Positions", in_dim, out_dim)
        self.scale = nn.Parameter(torch.full((in_dim,), scale))

    def layout(self, layout: Layout) -> Layout:
        check_rows(layout, "Positions")
        return layout

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        prefix, patches, suffix = split_prefix_grid_suffix(tokens, layout, "Positions")
        placed = patches + sincos(*patches.shape[1:]).to(patches) * self.scale
        return torch.cat([prefix, placed.flatten(1, 2), suffix], dim=1)


def sincos(rows: int, cols: int, width: int) -> Float[Tensor, "rows cols width"]:
    """Half of the channels tell the row, half the column. Places run from 0 to 1, so that grids of any size agree."""
    frequency = 2.0 ** torch.linspace(0, 5, width // 4) * torch.pi / 2
    down, across = (((torch.arange(size) + 0.5) / size)[:, None] * frequency for size in (rows, cols))
    row = torch.cat([down.sin(), down.cos()], dim=1)[:, None].expand(rows, cols, -1)
    col = torch.cat([across.sin(), across.cos()], dim=1)[None].expand(rows, cols, -1)
    return torch.cat([row, col], dim=2)
