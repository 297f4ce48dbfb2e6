"""Image specification, token layout of one image, and its place in a batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class ImageSpec:
    """Preprocessing that an encoder requires of an image.

    Attributes:
        size: height and width in pixels; with `fit`, `within` and `regions_` the largest, with
            `area` the largest square.
        mean: of each channel, subtracted from pixels of range 0 to 1.
        std: of each channel, divided by.
        resize: `squash` scales both sides to `size`; `crop` scales the short side and cuts out the middle, with an odd
            margin rounded down (CLIP in transformers), `crop_rounded` with it rounded to the even neighbour (open_clip,
            torchvision); `pad` first fills up to a square with the mean colour. Two keep the aspect ratio: `fit` scales
            the long side to that of `size` and rounds the short side up to a multiple of `multiple` (EVE); `within`
            shrinks only what is larger than `size` and fills up with black to multiples (Fuyu). `regions_smallest` and
            `regions_closest` stretch to the multiples of `multiple` that are nearest to the size of the image
            (VisualRWKV v7.02 and v7.03). `area` rounds both sides to multiples of `multiple` and scales what has more
            or fewer than `pixels` (Qwen2-VL). `none`: the input is no image.
        interpolation: of the scaling.
        multiple: height and width become multiples of it, in pixels.
        pixels: with `area` the least and the largest area.
        temporal_patch: frames of a video that a patch spans; several frames are one input of `3 x temporal_patch`
            channels, frame after frame. 1: frames are images.
        video_pixels: with `area` the least and the largest sum of the areas of all frames of a video.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resize: Literal[
        "squash", "crop", "crop_rounded", "pad", "fit", "within", "regions_smallest", "regions_closest", "area", "none"
    ] = "squash"
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    multiple: int = 1
    pixels: tuple[int, int] | None = None
    temporal_patch: int = 1
    video_pixels: tuple[int, int] | None = None

    @property
    def variable_size(self) -> bool:
        """True where images come out in different sizes."""
        return self.resize in ("fit", "within", "regions_smallest", "regions_closest", "area")


@dataclass(frozen=True)
class Layout:
    """Token layout of one image: prefix, row-major patch grid, suffix.

    Attributes:
        rows: of the patch grid.
        cols: of the patch grid.
        prefix: tokens before the grid: CLS, begin of image, learned queries (which have no place in the grid).
        suffix: tokens after the grid.
        separators: tokens at the end of each row.
        cross_attention: tokens that fill no slots of the text and are read by cross-attention.
        frames: of a video, whose grids lie below one another: `rows` are those of all of them.
    """

    rows: int = 0
    cols: int = 0
    prefix: int = 0
    suffix: int = 0
    separators: int = 0
    cross_attention: int = 0
    frames: int = 1

    @property
    def tokens(self) -> int:
        """Number of tokens that fill slots."""
        return self.prefix + self.rows * (self.cols + self.separators) + self.suffix

    def patch_indices(self) -> Int[Tensor, " patches"]:
        """Return the index of every patch among the tokens, row-major."""
        row = torch.arange(self.rows)[:, None] * (self.cols + self.separators)
        return (self.prefix + row + torch.arange(self.cols)).flatten()


@dataclass(frozen=True)
class ImageSpan:
    """Place of one image in a batch: positions `start:stop` of row `sample`.

    Attributes:
        sample: row of the batch.
        start: first slot.
        layout: of the visual tokens.
        modality: name of the modality that encodes the image.
        class_id: class of the image; None: not known.
    """

    sample: int
    start: int
    layout: Layout
    modality: str = "image"
    class_id: int | None = None

    @property
    def stop(self) -> int:
        """Position after the last slot."""
        return self.start + self.layout.tokens

    def lies_within(self, start: int, stop: int) -> bool:
        """Return True where the image, or the place of one that fills no slots, is among the positions `start:stop`."""
        return start <= self.start < stop and self.stop <= stop
