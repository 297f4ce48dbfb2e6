"""Patches without an encoder: projected, or as raw pixels."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.encoders.tower import Resize
from mmrnn.layers.sincos import geometric_frequencies, sincos_2d
from mmrnn.types import Encoder, FiniteFloat, ImageSpec, Layout, PositiveFloat, PositiveInt, reset_layers


class PatchEmbed(nn.Module, Encoder):
    """Projection of each patch, with positions and perhaps a norm (the stem of a ViT, arXiv 2010.11929).

    Args:
        patch: pixels a side.
        width: `e`, of the tokens.
        size: height and width of the images, a multiple of `patch`.
        positions: `learned` for images of this size; `sincos` (2-D, arXiv 2104.02057) and `none` for any size.
        norm: LayerNorm behind the projection.

    Raises:
        ValueError: the sizes do not divide, or `positions` is unknown.
    """

    def __init__(
        self,
        *,
        patch: PositiveInt = 16,
        width: PositiveInt = 256,
        size: PositiveInt = 128,
        positions: Literal["learned", "sincos", "none"] = "learned",
        norm: bool = True,
        resize: Resize = "squash",
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.5, 0.5, 0.5),
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5),
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

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        if self.positions is not None:
            nn.init.normal_(self.positions).mul_(0.02)

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of one image of that size in pixels.

        Raises:
            ValueError: the size is no multiple of the patch, or not that of the learned positions.
        """
        if self.positions is not None and (height, width) != self.image.size:
            built = " x ".join(map(str, self.image.size))
            raise ValueError(
                f"image size ({height} x {width}) must be {built}, for which positions are learned; "
                "for other sizes take positions=sincos"
            )
        return patch_grid(height, width, self.patch)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode images.

        Raises:
            ValueError: see `layout`.
        """
        layout = self.layout(*images.shape[-2:])
        tokens = rearrange(self.proj(images), "m e rows cols -> m (rows cols) e")
        if self.positions is not None:
            tokens = tokens + self.positions
        elif self.sincos:
            table = sincos_2d(
                torch.arange(layout.rows), torch.arange(layout.cols), geometric_frequencies(self.width // 4)
            )
            tokens = tokens + table.flatten(0, 1).to(tokens)
        return self.norm(tokens)


class Patchify(nn.Module, Encoder):
    """Raw pixels of each patch, in the order row, column, channel, for a linear connector (Fuyu).

    Args:
        patch: pixels a side.
        size: height and width of the images; other multiples of `patch` are accepted too.
        resize: as in `ImageSpec`; Fuyu has `within`.

    Raises:
        ValueError: the sizes do not divide.
    """

    def __init__(
        self,
        *,
        patch: PositiveInt = 30,
        size: PositiveInt | tuple[PositiveInt, PositiveInt] = (1080, 1920),
        resize: Resize | Literal["within"] = "squash",
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.5, 0.5, 0.5),
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5),
    ):
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.width = 3 * patch * patch
        self.patch = patch
        interpolation = "bilinear" if resize == "within" else "bicubic"
        self.image = ImageSpec((height, width), tuple(mean), tuple(std), resize, interpolation, multiple=patch)
        self.layout(height, width)

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of one image of that size in pixels.

        Raises:
            ValueError: the size is no multiple of the patch.
        """
        return patch_grid(height, width, self.patch)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Rearrange pixels into patches.

        Raises:
            ValueError: the size is no multiple of the patch.
        """
        self.layout(*images.shape[-2:])
        return rearrange(images, "m c (rows p) (cols q) -> m (rows cols) (p q c)", p=self.patch, q=self.patch)


def patch_grid(height: int, width: int, patch: int) -> Layout:
    """Layout of the patches of an image of that size in pixels.

    Raises:
        ValueError: the size is no multiple of the patch.
    """
    if height % patch or width % patch:
        raise ValueError(f"image size ({height} x {width}) must be a multiple of patch ({patch})")
    return Layout(rows=height // patch, cols=width // patch)
