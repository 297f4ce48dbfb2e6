"""Preprocessing of an image for an encoder: resized, cut or filled up, normalised."""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmrnn.data.frame_group import FrameGroup
from mmrnn.data.image import ImageError, image_size
from mmrnn.data.rgb import to_rgb
from mmrnn.types import ImageSource, ImageSpec

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

MAX_SCALED_PIXELS = 64_000_000
"""Largest scaled image that a crop is taken from; of an image that would exceed it, the middle is cut out first."""

MAX_ASPECT = 200
"""Largest ratio of the sides of an image whose area is fitted."""

MAX_SQUARE = 8192
"""Side in pixels of the largest square that an image is padded to."""


def read_pixels(source: ImageSource, spec: ImageSpec) -> Float[Tensor, "c H W"]:
    """Open an image and prepare it as an encoder requires; of a group of frames their channels follow one another.

    Raises:
        ImageError: it cannot be opened.
        ValueError: it is a group of another number of frames than the encoder reads as one.
    """
    if not isinstance(source, FrameGroup):
        return to_tensor(source.open(), spec)
    _check_group(source, spec)
    size = area_size(source.size(), spec, source.of) if spec.resize == "area" else None
    return torch.cat([to_tensor(frame.open(), spec, size) for frame in source.frames])


def source_size(source: ImageSource, spec: ImageSpec) -> tuple[int, int]:
    """Return height and width of the pixels that `read_pixels` makes of an image, decoding nothing where it can.

    Raises:
        ImageError, ValueError: as `read_pixels`.
    """
    if isinstance(source, FrameGroup):
        _check_group(source, spec)
        if spec.resize == "area":
            return area_size(source.size(), spec, source.of)[::-1]
    return prepared_size(image_size(source), spec)


def _check_group(source: FrameGroup, spec: ImageSpec) -> None:
    if spec.temporal_patch != len(source.frames):
        raise ValueError(
            f"the data put {len(source.frames)} frames of a video into one input, and the encoder reads "
            f"{spec.temporal_patch}; set data.temporal_patch={spec.temporal_patch}"
        )


def to_tensor(image: Image.Image, spec: ImageSpec, size: tuple[int, int] | None = None) -> Float[Tensor, "3 H W"]:
    """Resize and normalise an image as an encoder requires, with the rounding of CLIP's own processor.

    Args:
        image: of any mode.
        spec: of the encoder.
        size: width and height in place of those of the specification.
    """
    image = to_rgb(image)
    fitted = _fit(image, spec) if size is None else image.resize(size, RESAMPLING[spec.interpolation])
    # numpy: for so few numbers, torch's threads cost more than they save.
    pixels = np.asarray(fitted, dtype=np.float32) / np.float32(255)
    pixels = (pixels - np.float32(spec.mean)) / np.float32(spec.std)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    height, width = spec.size
    resampling = RESAMPLING[spec.interpolation]
    if spec.resize == "fit":
        return image.resize(fitted_size(image.size, spec), resampling)
    if spec.resize == "area":
        return image.resize(area_size(image.size, spec), resampling)
    if spec.resize.startswith("regions_"):
        return image.resize(region_size(image.size, spec), resampling)
    if spec.resize == "within":
        return _within(image, spec, resampling)
    if spec.resize == "pad":
        image = _pad(image, spec)
    if spec.resize not in ("crop", "crop_rounded"):
        return image.resize((width, height), resampling)
    # Cut first where scaling a very long image would exceed the memory.
    most = MAX_SCALED_PIXELS // (width * height) * min(image.size)
    image = _middle(image, min(image.width, most), min(image.height, most))
    # The short side becomes that of the size, the long side is rounded down.
    if width * image.height >= height * image.width:
        scaled = width, max(height, int(width * image.height / image.width))
    else:
        scaled = max(width, int(height * image.width / image.height)), height
    return _middle(image.resize(scaled, resampling), width, height, rounded=spec.resize == "crop_rounded")


def prepared_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Height and width of the pixels that `to_tensor` makes of an image of width and height `size`."""
    if spec.resize == "fit":
        return fitted_size(size, spec)[::-1]
    if spec.resize == "area":
        return area_size(size, spec)[::-1]
    if spec.resize == "within":
        return _filled_size(_shrunk_size(size, spec), spec)[::-1]
    if spec.resize.startswith("regions_"):
        return region_size(size, spec)[::-1]
    return spec.size


def fitted_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Width and height that `fit` makes of `size` (EVE).

    The long side becomes that of the specification, the short side is rounded up to a multiple.
    """
    long, most = max(size), max(spec.size)
    width, height = (min(-(-side * most // (long * spec.multiple)) * spec.multiple, most) for side in size)
    return width, height


def area_size(size: tuple[int, int], spec: ImageSpec, frames: int = 0) -> tuple[int, int]:
    """Width and height that `area` makes of `size` (Qwen2-VL): multiples, an area within bounds, about its shape.

    Args:
        size: of the image.
        spec: of the encoder.
        frames: of a video that `size` is that of, whose bounds are for all frames together (Qwen3-VL); 0: no video.

    Raises:
        ImageError: one side is more than MAX_ASPECT times the other.
    """
    cell, count, area = spec.multiple, 1, size[0] * size[1]
    least, most = spec.pixels
    if frames:
        least, most = spec.video_pixels
        count, area = round(frames / spec.temporal_patch) * spec.temporal_patch, frames * area
        if min(size) < cell:
            scale = cell / min(size)
            size = int(size[0] * scale), int(size[1] * scale)
            area = frames * size[0] * size[1]
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(f"an image of {size[0]} x {size[1]} pixels is too long and narrow; cut it", "a shape")
    width, height = (max(cell, round(side / cell) * cell) for side in size)
    if count * width * height > most:
        shrink = math.sqrt(area / most)
        width, height = (max(cell, math.floor(side / shrink / cell) * cell) for side in size)
    elif count * width * height < least:
        grow = math.sqrt(least / area)
        width, height = (math.ceil(side * grow / cell) * cell for side in size)
    return width, height


def region_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Width and height that the image is stretched to: multiples of a region's side nearest to `size` (VisualRWKV).

    Compared are one region less and as many as cover the image, along both sides: by the area that it leaves empty
    when its aspect ratio is kept, with `regions_closest` plus the difference of the areas.
    """
    width, height = _shrunk_size(size, spec)
    side, best = spec.multiple, None
    most_cols, most_rows = -(-width // side), -(-height // side)
    for cols in range(max(1, most_cols - 1), most_cols + 1):
        for rows in range(max(1, most_rows - 1), most_rows + 1):
            area = side * cols * side * rows
            scale = min(side * cols / width, side * rows / height)
            waste = abs(area - int(width * scale) * int(height * scale))
            if spec.resize == "regions_closest":
                waste += abs(area - width * height)
            if best is None or waste < best[0]:
                best = waste, (side * cols, side * rows)
    return best[1]


def _within(image: Image.Image, spec: ImageSpec, resampling: Image.Resampling) -> Image.Image:
    """Image shrunk to at most `size`, filled up with black to multiples (Fuyu).

    The fill value is 1 of 255, as in the released processor.
    """
    if (size := _shrunk_size(image.size, spec)) != image.size:
        image = image.resize(size, resampling)
    filled = Image.new("RGB", _filled_size(image.size, spec), (1, 1, 1))
    filled.paste(image, (0, 0))
    return filled


def _shrunk_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    height, width = spec.size
    scale = min(1.0, height / size[1], width / size[0])
    return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def _filled_size(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    width, height = (-(-side // spec.multiple) * spec.multiple for side in size)
    return width, height


def _middle(image: Image.Image, width: int, height: int, *, rounded: bool = False) -> Image.Image:
    """Middle of an image; an odd margin is rounded down, or to the even neighbour (torchvision, open_clip)."""
    left, top = (image.width - width) / 2, (image.height - height) / 2
    left, top = (round(left), round(top)) if rounded else (int(left), int(top))
    return image.crop((left, top, left + width, top + height))


def _pad(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Square of the long side, filled with the mean colour, the image in its middle (LLaVA-1.5)."""
    if max(image.size) > MAX_SQUARE:
        image = image.copy()
        image.thumbnail((MAX_SQUARE, MAX_SQUARE))
    side = max(image.size)
    red, green, blue = (int(value * 255) for value in spec.mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
