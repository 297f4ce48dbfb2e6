"""Images: opened safely, and made what an encoder reads."""

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

PIXELS = 64_000_000
"""The largest image that is opened: a small file can unpack to far more than the memory holds."""

VOLUME = 2**30
"""The most pixels of all frames of a moving image: to show one, Pillow has to make those before it."""

BYTES = 2**28
"""The largest file of a moving image: how many frames it has is only known when all of it was read."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "TGA", "ICO", "AVIF")
"""Pillow knows more, some of them programs to be run (EPS)."""

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

SLIM = 16
"""No crop keeps more of an image's middle than so many times its short side."""

SQUARE = 8192
"""Pixels on a side of the largest square that an image is padded to."""


class ImageError(ValueError):
    """An image that cannot be had; the sentence names the file and the fault."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a file. `name` becomes its key (a path relative to the data survives a move); else the path does."""

    path: str | Path
    name: str = ""
    pixels: int = PIXELS

    @property
    def key(self) -> str:
        return self.name or str(self.path)

    def open(self) -> Image.Image:
        return open_image(self.path, pixels=self.pixels)


def open_image(
    source: str | Path | bytes, *, pixels: int = PIXELS, frame: Callable[[int], int] | None = None
) -> Image.Image:
    """The image as RGB: the first frame, upright as EXIF says, on white where it is transparent, 16 bits to 8.

    Args:
        source: a path, or the bytes of a file.
        pixels: more are refused before they are unpacked.
        frame: answers which frame is wanted when it is told how many there are.

    Raises:
        ImageError: not there, not an image, broken, or too large.
    """
    name = f"an image of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    Image.init()
    formats = [known for known in FORMATS if known in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on size and broken EXIF
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
                width, height = image.size
                if width * height > pixels:
                    raise ImageError(f"{name} has {width} x {height} pixels, {pixels} are allowed; scale it down")
                if frame is not None:
                    _turn_to(image, frame, name)
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


def _turn_to(image: Image.Image, frame: Callable[[int], int], name: str) -> None:
    """Show another frame of a moving image."""
    stream = getattr(image, "fp", None)
    size = stream.seek(0, 2) if stream is not None else 0
    if size > BYTES:
        raise ImageError(f"{name} has {size} bytes, {BYTES} are allowed; put its frames into a folder and name that")
    total, (width, height) = getattr(image, "n_frames", 1), image.size
    if total * width * height > VOLUME:
        raise ImageError(
            f"{name} has {total} frames of {width} x {height} pixels, {VOLUME} pixels are allowed in all; "
            "put its frames into a folder and name that"
        )
    image.seek(frame(total))


def to_tensor(image: Image.Image, spec: ImageSpec) -> Float[Tensor, "3 H W"]:
    """The image at the size and in the range that an encoder wants, scaled as CLIP's own processor does it."""
    # In numpy: threads for so few numbers cost torch more than they bring.
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
    # Cut first: the ends of a very long image are not worth scaling, and could not be held in memory.
    most = SLIM * min(image.size)
    image = _middle(image, min(image.width, most), min(image.height, most))
    # The short side becomes what is wanted, the long side is rounded down.
    if width * image.height >= height * image.width:
        scaled = width, max(height, int(width * image.height / image.width))
    else:
        scaled = max(width, int(height * image.width / image.height)), height
    return _middle(image.resize(scaled, resampling), width, height)


def _fitting(image: Image.Image, spec: ImageSpec) -> tuple[int, int]:
    """Width and height with the long side as large as that of `size`, the short side whole multiples (EVE)."""
    long, most = max(image.size), max(spec.size)
    width, height = (min(-(-side * most // (long * spec.multiple)) * spec.multiple, most) for side in image.size)
    return width, height


def _within(image: Image.Image, spec: ImageSpec, resampling: Image.Resampling) -> Image.Image:
    """The image at its own size or, where it is larger than `size`, as large as fits; black up to multiples (Fuyu).

    The value that fills up is 1 of 255, as the released processor has it.
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
    """A square as large as the long side, the image in its middle (LLaVA-1.5)."""
    if max(image.size) > SQUARE:
        image = image.copy()
        image.thumbnail((SQUARE, SQUARE))
    side = max(image.size)
    red, green, blue = (int(value * 255) for value in spec.mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF does not spoil the pixels
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
