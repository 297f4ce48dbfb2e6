"""Space-to-depth: neighbouring patches concatenated on the channels."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.connectors.grid import require_grid, require_same_width, split_prefix_grid_suffix
from mmrnn.types import Connector, Layout, PositiveInt


class Merge(nn.Module, Connector):
    """Blocks of `rows` x `cols` patches as one token each, of rows * cols times the width.

    Within a block the patches are concatenated row by row. Blocks of 1 x 4 are MiniGPT-v2 (arXiv 2310.09478), blocks
    of 2 x 2 in column-major order the downsampling of VILA-1.5 (arXiv 2312.07533).

    Args:
        order: of the blocks. With "col" they are emitted column by column, in the layout of the transposed image.
        pad: fill the last rows and columns up with zeros; otherwise the grid must be divisible.

    Raises:
        ValueError: a block is empty, `order` is unknown, or another width is asked for.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        rows: PositiveInt = 2,
        cols: PositiveInt = 2,
        order: Literal["row", "col"] = "row",
        pad: bool = True,
    ):
        super().__init__()
        if min(rows, cols) < 1:
            raise ValueError(f"a block of {rows} x {cols} patches must have at least one")
        if order not in ("row", "col"):
            raise ValueError(f"order ({order!r}) must be 'row' or 'col'")
        self.width = require_same_width("Merge", in_dim * rows * cols, out_dim)
        self.rows, self.cols, self.order, self.pad = rows, cols, order, pad

    def layout(self, layout: Layout) -> Layout:
        """Layout of the blocks.

        Raises:
            ValueError: see `padding`.
        """
        down, right = self.padding(layout)
        rows, cols = (layout.rows + down) // self.rows, (layout.cols + right) // self.cols
        return Layout(rows, cols) if self.order == "row" else Layout(cols, rows)

    def padding(self, layout: Layout) -> tuple[int, int]:
        """Rows and columns that are added to make the grid divisible into blocks.

        Raises:
            ValueError: there is no grid, there are tokens outside it, or it must be padded and `pad` is False.
        """
        require_grid(layout, "Merge")
        if layout.prefix + layout.suffix:
            raise ValueError(
                f"Merge cannot keep the {layout.prefix + layout.suffix} tokens outside the grid; "
                "let the encoder drop its CLS token"
            )
        padding = -layout.rows % self.rows, -layout.cols % self.cols
        if any(padding) and not self.pad:
            raise ValueError(
                f"{layout.rows} x {layout.cols} patches do not divide into blocks of "
                f"{self.rows} x {self.cols}; choose another image size or pad=True"
            )
        return padding

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Concatenate the patches of each block."""
        _, patches, _ = split_prefix_grid_suffix(tokens, layout, "Merge")
        down, right = self.padding(layout)
        patches = F.pad(patches, (0, 0, 0, right, 0, down))
        blocks = patches.unflatten(2, (-1, self.cols)).unflatten(1, (-1, self.rows))  # m R rows C cols e
        outer = (1, 3) if self.order == "row" else (3, 1)
        return blocks.permute(0, *outer, 2, 4, 5).flatten(3).flatten(1, 2)
