"""Image specification, token layout of one image, and its place in a batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class ImageSpec:
    """What has to be done to an image before an encoder reads it.

    `resize`: `squash` scales both sides, `crop` scales the short side and cuts the middle out,
    `pad` fills up to a square with the mean colour first. Two keep the shape of every image: `fit` scales the long
    side to that of `size` and rounds the short side up to a multiple of `multiple` (EVE); `within` shrinks only what
    is larger than `size`, and fills up with black to multiples (Fuyu). `none` is for what is no image.
    """

    size: tuple[int, int]  # height, width
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize: Literal["squash", "crop", "pad", "fit", "within", "none"] = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    multiple: int = 1

    @property
    def ragged(self) -> bool:
        """Whether images come out in different sizes."""
        return self.resize in ("fit", "within")


@dataclass(frozen=True)
class Layout:
    """How the tokens of one image lie: prefix, a grid of patches row by row (each row may be closed by
    separators), suffix. Learned queries have no place in the image: they are prefix, the grid is empty. Tokens
    `beside` the text fill none of its slots: cross-attention reads them.
    """

    rows: int = 0
    cols: int = 0
    prefix: int = 0
    suffix: int = 0
    separators: int = 0
    cross_attention: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + self.rows * (self.cols + self.separators) + self.suffix

    def patches(self) -> Int[Tensor, " patches"]:
        """Index of every patch among the tokens, row-major."""
        row = torch.arange(self.rows)[:, None] * (self.cols + self.separators)
        return (self.prefix + row + torch.arange(self.cols)).flatten()


@dataclass(frozen=True)
class ImageSpan:
    """The place of one image: `layout.tokens` slots of row `sample` from position `start` on."""

    sample: int
    start: int
    layout: Layout
    modality: str = "image"

    @property
    def stop(self) -> int:
        return self.start + self.layout.tokens
