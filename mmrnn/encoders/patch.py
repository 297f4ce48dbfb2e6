"""Encoder-free: an image is cut into patches, and the language model has to make modality of them."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.encoders.tower import Resize
from mmrnn.types import Encoder, ImageSpec, Layout


class PatchEmbed(nn.Module, Encoder):
    """Every patch projected on its own, with a position and perhaps a norm (the stem of a ViT, arXiv 2010.11929).

    Args:
        size: height and width of the images, a multiple of `patch`.
        positions: `learned` for images of this size; `sincos` (2-D, arXiv 2104.02057) and `none` for any size.

    Raises:
        ValueError: the sizes do not divide.
    """

    def __init__(
        self,
        *,
        patch: int = 16,
        width: int = 256,
        size: int = 128,
        positions: Literal["learned", "sincos", "none"] = "learned",
        norm: bool = True,
        resize: Resize = "squash",
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ):
        super().__init__()
        if size % patch:
            raise ValueError(f"image size ({size}) must be a multiple of patch ({patch})")
        if positions not in ("learned", "sincos", "none"):
            raise ValueError(f"positions ({positions!r}) must be learned, sincos or none")
        if positions == "sincos" and width % 4:
            raise ValueError(f"width ({width}) must be a multiple of 4 for sincos positions")
        self.width = width
        self.patch = patch
        self.image = ImageSpec((size, size), tuple(mean), tuple(std), resize)
        self.sincos = positions == "sincos"
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        learned = torch.randn((size // patch) ** 2, width) * 0.02 if positions == "learned" else None
        self.positions = None if learned is None else nn.Parameter(learned)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def layout(self, height: int, width: int) -> Layout:
        """How the tokens of an image of so many pixels lie.

        Raises:
            ValueError: the size is no multiple of the patch, or not that of the learned positions.
        """
        if self.positions is not None and (height, width) != self.image.size:
            built = " x ".join(map(str, self.image.size))
            raise ValueError(
                f"image size ({height} x {width}) must be {built}, for which positions are learned; "
                "for other sizes take positions=sincos"
            )
        return grid(height, width, self.patch)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        layout = self.layout(*images.shape[-2:])
        tokens = rearrange(self.proj(images), "m e rows cols -> m (rows cols) e")
        if self.positions is not None:
            tokens = tokens + self.positions
        elif self.sincos:
            tokens = tokens + sincos(layout.rows, layout.cols, self.width).to(tokens)
        return self.norm(tokens)


class Patchify(nn.Module, Encoder):
    """The pixels of every patch in the order row, column, channel; a linear connector reads them (Fuyu).

    Args:
        size: height and width of the images. Other multiples of `patch` can be read too.
        resize: `within` keeps images as they are, shrinks those that are larger than `size`, and fills them up with
            black to whole patches (Fuyu).

    Raises:
        ValueError: the sizes do not divide.
    """

    def __init__(
        self,
        *,
        patch: int = 30,
        size: int | tuple[int, int] = (1080, 1920),
        resize: Literal["squash", "crop", "pad", "within"] = "squash",
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ):
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.width = 3 * patch * patch
        self.patch = patch
        how = "bilinear" if resize == "within" else "bicubic"
        self.image = ImageSpec((height, width), tuple(mean), tuple(std), resize, how, multiple=patch)
        self.layout(height, width)

    def layout(self, height: int, width: int) -> Layout:
        """How the tokens of an image of so many pixels lie.

        Raises:
            ValueError: the size is no multiple of the patch.
        """
        return grid(height, width, self.patch)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        self.layout(*images.shape[-2:])
        return rearrange(images, "m c (rows p) (cols q) -> m (rows cols) (p q c)", p=self.patch, q=self.patch)


def grid(height: int, width: int, patch: int) -> Layout:
    """
    Raises:
        ValueError: the size is no multiple of the patch.
    """
    if height % patch or width % patch:
        raise ValueError(f"image size ({height} x {width}) must be a multiple of patch ({patch})")
    return Layout(rows=height // patch, cols=width // patch)


def sincos(rows: int, cols: int, width: int) -> Float[Tensor, "n e"]:
    """Fixed 2-D positions: sine and cosine of the row, then of the column, each over a quarter of the width."""
    rates = 10000 ** -(torch.arange(width // 4) / (width // 4))
    row = torch.arange(rows)[:, None] * rates
    col = torch.arange(cols)[:, None] * rates
    down = torch.cat((row.sin(), row.cos()), dim=-1)[:, None].expand(rows, cols, -1)
    along = torch.cat((col.sin(), col.cos()), dim=-1)[None].expand(rows, cols, -1)
    return torch.cat((down, along), dim=-1).flatten(0, 1)
