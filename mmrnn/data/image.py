"""Safe opening of image files, and preprocessing for an encoder."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmrnn.types import ImageSpec

MAX_PIXELS = 64_000_000
"""Largest image that is opened: a small file can decompress to more than the memory holds."""

MAX_VIDEO_PIXELS = 2**30
"""Most pixels in all frames of an animated image: to decode a frame, Pillow decodes those before it."""

MAX_VIDEO_BYTES = 2**28
"""Largest file of an animated image: counting its frames reads all of it."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "TGA", "ICO", "AVIF")
"""Formats that are opened; some others of Pillow execute programs (EPS)."""

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

MAX_ASPECT = 16
"""Aspect ratio that an image is cut to before a crop is scaled."""

MAX_SQUARE = 8192
"""Side in pixels of the largest square that an image is padded to."""


class ImageError(ValueError):
    """An image that cannot be opened; the message names the file and the fault."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a file.

    Attributes:
        path: of the file.
        name: used as key in place of the path; a path relative to the data survives a move.
        max_pixels: larger images are refused.
    """

    path: str | Path
    name: str = ""
    max_pixels: int = MAX_PIXELS

    @property
    def key(self) -> str:
        """Stable identifier of the image."""
        return self.name or str(self.path)

    def open(self) -> Image.Image:
        """Return the image as RGB.

        Raises:
            ImageError: not there, not an image, broken, or too large.
        """
        return open_image(self.path, max_pixels=self.max_pixels)


def open_image(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, frame: Callable[[int], int] | None = None
) -> Image.Image:
    """Open an image as 8-bit RGB, rotated as its EXIF tag requires, transparent pixels on white.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: larger images are refused before they are decompressed.
        frame: returns the index of the frame to decode, given the number of frames; None: the first.

    Raises:
        ImageError: not there, not an image, broken, or too large.
    """
    name = f"an image of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    Image.init()
    formats = [known for known in FORMATS if known in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about size and broken EXIF
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageError(f"{name} has {width} x {height} pixels, {max_pixels} are allowed; scale it down")
                if frame is not None:
                    _seek(image, frame, name)
                image.load()
                return _rgb(_upright(image))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name} is not there") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image of a known format") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large to be opened: {error}") from None
    except Exception as error:  # a broken file makes Pillow raise almost anything
        raise ImageError(f"{name} is broken: {error or type(error).__name__}") from error


def _seek(image: Image.Image, frame: Callable[[int], int], name: str) -> None:
    """Go to a frame of an animated image."""
    stream = getattr(image, "fp", None)
    size = stream.seek(0, 2) if stream is not None else 0
    if size > MAX_VIDEO_BYTES:
        raise ImageError(f"{name} has {size} bytes, {MAX_VIDEO_BYTES} are allowed; use a folder of its frames")
    total, (width, height) = getattr(image, "n_frames", 1), image.size
    if total * width * height > MAX_VIDEO_PIXELS:
        raise ImageError(
            f"{name} has {total} frames of {width} x {height} pixels, {MAX_VIDEO_PIXELS} pixels are allowed in all; "
            "use a folder of its frames"
        )
    image.seek(frame(total))


def to_tensor(image: Image.Image, spec: ImageSpec) -> Float[Tensor, "3 H W"]:
    """Resize and normalise an image as an encoder requires, with the rounding of CLIP's own processor."""
    # numpy: for so few numbers, torch's threads cost more than they save.
    pixels = np.asarray(_fit(image.convert("RGB"), spec), dtype=np.float32) / np.float32(255)
    pixels = (pixels - np.float32(spec.mean)) / np.float32(spec.std)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    height, width = spec.size
    resampling = RESAMPLING[spec.interpolation]
    if spec.resize == "fit":
        return image.resize(_fitting(image, spec), resampling)
    if spec.resize == "within":
        return _within(image, spec, resampling)
    if spec.resize == "pad":
        image = _pad(image, spec)
    if spec.resize != "crop":
        return image.resize((width, height), resampling)
    # Cut first: scaling a very long image could exceed the memory.
    most = MAX_ASPECT * min(image.size)
    image = _middle(image, min(image.width, most), min(image.height, most))
    # The short side becomes that of the size, the long side is rounded down.
    if width * image.height >= height * image.width:
        scaled = width, max(height, int(width * image.height / image.width))
    else:
        scaled = max(width, int(height * image.width / image.height)), height
    return _middle(image.resize(scaled, resampling), width, height)


def _fitting(image: Image.Image, spec: ImageSpec) -> tuple[int, int]:
    """Width and height: the long side that of `size`, the short side rounded up to a multiple (EVE)."""
    long, most = max(image.size), max(spec.size)
    width, height = (min(-(-side * most // (long * spec.multiple)) * spec.multiple, most) for side in image.size)
    return width, height


def _within(image: Image.Image, spec: ImageSpec, resampling: Image.Resampling) -> Image.Image:
    """Image shrunk to at most `size`, filled up with black to multiples (Fuyu).

    The fill value is 1 of 255, as in the released processor.
    """
    height, width = spec.size
    if image.width > width or image.height > height:
        scale = min(height / image.height, width / image.width)
        image = image.resize((max(int(image.width * scale), 1), max(int(image.height * scale), 1)), resampling)
    whole = tuple(-(-side // spec.multiple) * spec.multiple for side in image.size)
    filled = Image.new("RGB", whole, (1, 1, 1))
    filled.paste(image, (0, 0))
    return filled


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
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


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF: the pixels are valid
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        scale = 257 if image.mode != "I" or values.max() > 255 else 1
        return Image.fromarray((values / scale).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return ground.convert("RGB")
    return image.convert("RGB")
