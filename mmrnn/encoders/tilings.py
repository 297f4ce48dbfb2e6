"""Ways to cut an image into views: regions (VisualRWKV v7.02), a grid of the best shape (LLaVA-1.6), quarters (UHD)."""

from math import ceil
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmrnn.types import ImageSpec, Layout, PositiveInt, Tiling

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""Values from 0 to 1."""


def scale(images: Float[Tensor, "m c H W"], height: int, width: int) -> Float[Tensor, "m c h w"]:
    """Resize images (bicubic, antialias), rounded to 256 levels as processors do."""
    if images.shape[-2:] == (height, width):
        return images
    resized = F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True)
    levels = (resized.clamp(0, 1) * 255).round() / 255
    # Rounding has no gradient: pixels get that of the resized image.
    return (resized + (levels - resized).detach()).to(images)


class Regions(Tiling):
    """Regions of an image that is first stretched to a grid of them, row by row and without a view of the whole.

    The data side stretches (Lanczos) to the grid whose area is nearest to that of the image. The tokens of a region lie
    together: the layout is that of all regions one below the other (VisualRWKV v7.02).

    Args:
        criterion: `smallest` compares the area that the image fills of the grid when its aspect ratio is kept
            (v7.02), `closest` adds the difference between the areas of grid and image (v7.03).
        most: regions along a side; a larger image is scaled down first. Upstream has no bound.
    """

    def __init__(self, *, criterion: Literal["smallest", "closest"] = "closest", most: PositiveInt = 8):
        self.criterion, self.most = criterion, most

    def image_spec(self, side: int) -> ImageSpec:
        """Images whose sides are multiples of that of a region. See `Tiling`."""
        largest = (side * self.most, side * self.most)
        return ImageSpec(largest, **PLAIN, resize=f"regions_{self.criterion}", interpolation="lanczos", multiple=side)

    def width(self, width: int) -> int:
        """Width of the encoder."""
        return width

    def layout(self, size: tuple[int, int], side: int, view: Layout) -> Layout:
        """Layout of all regions, one below the other. See `Tiling`."""
        rows, cols = self._grid(size, side)
        return Layout(rows=rows * cols * view.rows, cols=view.cols)

    def views(self, images: Float[Tensor, "m c H W"], side: int) -> Float[Tensor, "m v c h w"]:
        """The regions, row by row. See `Tiling`."""
        return rearrange(images, "m c (rows h) (cols w) -> m (rows cols) c h w", h=side, w=side)

    def join(
        self, tokens: Float[Tensor, "m v n e"], size: tuple[int, int], side: int, view: Layout
    ) -> Float[Tensor, "m t e"]:
        """Tokens of one region after the other. See `Tiling`."""
        return tokens.flatten(1, 2)

    def _grid(self, size: tuple[int, int], side: int) -> tuple[int, int]:
        height, width = size
        if height % side or width % side or not height * width:
            raise ValueError(f"image size ({height} x {width}) must be a multiple of the side of a region ({side})")
        return height // side, width // side


class BestGrid(Tiling):
    """The whole image, and tiles of it on the grid that keeps most of its pixels (LLaVA-1.6, `anyres`).

    The image fills the grid as far as its aspect ratio allows, and black the rest; tokens of the rest are dropped
    (`spatial_unpad`). The layout is the patches of the whole image as prefix, then one grid of patches of all tiles.

    Args:
        grids: rows and columns of tiles to choose from.
        max_size: longest side of an image in pixels; a larger one is scaled down first.
    """

    def __init__(
        self,
        *,
        grids: tuple[tuple[PositiveInt, PositiveInt], ...] = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
        max_size: PositiveInt = 2048,
    ):
        if not grids or min(min(grid) for grid in grids) < 1:
            raise ValueError(f"grids ({grids}) must name at least one grid, each of at least one row and column")
        self.grids, self.max_size = [tuple(grid) for grid in grids], max_size

    def image_spec(self, side: int) -> ImageSpec:
        """Images as they are. See `Tiling`."""
        return ImageSpec((self.max_size, self.max_size), **PLAIN, resize="within")

    def width(self, width: int) -> int:
        """Width of the encoder."""
        return width

    def layout(self, size: tuple[int, int], side: int, view: Layout) -> Layout:
        """Layout of the whole and of the tiles. See `Tiling`."""
        top, left, rows, cols = self._kept(size, side, view)
        return Layout(rows=rows - 2 * top, cols=cols - 2 * left, prefix=view.tokens)

    def views(self, images: Float[Tensor, "m c H W"], side: int) -> Float[Tensor, "m v c h w"]:
        """The whole image, then the tiles row by row. See `Tiling`."""
        height, width = images.shape[-2:]
        rows, cols = self.choose((height, width), side)
        high, wide = rows * side, cols * side
        by_width, by_height = wide / width, high / height
        inner = (
            (min(ceil(height * by_width), high), wide)
            if by_width < by_height
            else (high, min(ceil(width * by_height), wide))
        )
        fitted = scale(images, *inner)
        top, left = (high - inner[0]) // 2, (wide - inner[1]) // 2
        filled = F.pad(fitted, (left, wide - inner[1] - left, top, high - inner[0] - top))
        tiles = rearrange(filled, "m c (rows h) (cols w) -> m (rows cols) c h w", h=side, w=side)
        return torch.cat([scale(images, side, side)[:, None], tiles], dim=1)

    def join(
        self, tokens: Float[Tensor, "m v n e"], size: tuple[int, int], side: int, view: Layout
    ) -> Float[Tensor, "m t e"]:
        """Tokens of the whole image, then those of the tiles in one raster. See `Tiling`."""
        top, left, rows, cols = self._kept(size, side, view)
        raster = rearrange(
            tokens[:, 1:],
            "m (R C) (rows cols) e -> m (R rows) (C cols) e",
            R=rows // view.rows,
            rows=view.rows,
        )
        kept = raster[:, top : rows - top, left : cols - left]
        return torch.cat([tokens[:, 0], kept.flatten(1, 2)], dim=1)

    def choose(self, size: tuple[int, int], side: int) -> tuple[int, int]:
        """Rows and columns of the grid that keeps most pixels of an image, and of these the smallest."""
        height, width = size

        def value(grid: tuple[int, int]) -> tuple[int, int]:
            high, wide = grid[0] * side, grid[1] * side
            factor = min(wide / width, high / height)
            kept = min(int(width * factor) * int(height * factor), width * height)
            return kept, kept - high * wide

        return max(self.grids, key=value)

    def _kept(self, size: tuple[int, int], side: int, view: Layout) -> tuple[int, int, int, int]:
        """Rows and columns to drop on both sides, and those of the whole grid, in patches."""
        (height, width), (tall, broad) = size, self.choose(size, side)
        rows, cols = tall * view.rows, broad * view.cols
        if width / height > cols / rows:
            inner = int(round(height * (cols / width), 7))
            return (rows - max(inner, 1)) // 2, 0, rows, cols
        inner = int(round(width * (rows / height), 7))
        return 0, (cols - max(inner, 1)) // 2, rows, cols


class Quarters(Tiling):
    """The whole image and its four quarters, whose tokens lie on the channels of the whole (VisualRWKV-UHD).

    Each quarter's patches are averaged in blocks of 2 x 2, and the four put together, so that they lie where those of
    the whole image do. An odd last row or column of pixels is in no quarter.

    Args:
        max_size: longest side of an image in pixels; a larger one is scaled down first.
    """

    def __init__(self, *, max_size: PositiveInt = 2048):
        self.max_size = max_size

    def image_spec(self, side: int) -> ImageSpec:
        """Images as they are. See `Tiling`."""
        return ImageSpec((self.max_size, self.max_size), **PLAIN, resize="within")

    def width(self, width: int) -> int:
        """Twice the width of the encoder."""
        return 2 * width

    def layout(self, size: tuple[int, int], side: int, view: Layout) -> Layout:
        """Layout of one view.

        Raises:
            ValueError: the image cannot be halved, or the patches of a view cannot.
        """
        if min(size) < 2:
            raise ValueError(f"an image of {size[0]} x {size[1]} pixels has no quarters")
        if view.rows % 2 or view.cols % 2:
            raise ValueError(
                f"{view.rows} x {view.cols} patches of a view cannot be halved; change the size of the tower"
            )
        return view

    def views(self, images: Float[Tensor, "m c H W"], side: int) -> Float[Tensor, "m v c h w"]:
        """The whole image, then its quarters row by row. See `Tiling`."""
        return torch.stack([scale(part, side, side) for part in (images, *quarters(images))], dim=1)

    def join(
        self, tokens: Float[Tensor, "m v n e"], size: tuple[int, int], side: int, view: Layout
    ) -> Float[Tensor, "m t d"]:
        """Tokens of the whole image, each with the mean of those of the quarters at its place. See `Tiling`."""
        grid = rearrange(
            tokens[:, 1:],
            "m (R C) (rows cols) e -> m e (R rows) (C cols)",
            R=2,
            rows=view.rows,
        )
        pooled = F.avg_pool2d(grid, 2).flatten(2).mT
        return torch.cat([tokens[:, 0], pooled], dim=-1)


def quarters(images: Float[Tensor, "m c H W"]) -> list[Float[Tensor, "m c h w"]]:
    """Return the quarters of images: top left, top right, bottom left, bottom right."""
    height, width = images.shape[-2] // 2, images.shape[-1] // 2
    return [images[..., top : top + height, left : left + width] for top in (0, height) for left in (0, width)]
