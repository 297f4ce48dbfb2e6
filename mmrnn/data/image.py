"""Safe opening of images: files, bytes, open images and arrays, all through one door."""

import os
import re
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmrnn.data.animated import frame_count
from mmrnn.data.rgb import Decoding, array_to_image, is_turned, to_rgb
from mmrnn.types import ImageSource, SizedImage

T = TypeVar("T")

MAX_PIXELS = 64_000_000
"""Largest image that is opened: a small file can decompress to more than the memory holds."""

MAX_SIDE = 2**16
"""Longest side in pixels: scaling a line of a few pixels by millions takes a multiple of its memory."""

MAX_BYTES = 2**29
"""Largest file that is opened."""

MAX_VIDEO_PIXELS = 2**30
"""Most pixels in all frames of an animated image: to decode a frame, Pillow decodes those before it."""

MAX_VIDEO_BYTES = 2**28
"""Largest file of an animated image: counting its frames reads all of it."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "TGA", "ICO", "AVIF")
"""Formats that are opened; some others of Pillow execute programs (EPS)."""

PPM_KINDS, MAX_PPM_HEADER = b"0123456fFy", 2**16
PPM_HEADER = re.compile(
    rb"P(?:[14](?:SEP[^\s#]+){2}|[^\s14]\w*(?:SEP[^\s#]+){3})\s".replace(b"SEP", rb"(?:\s|#[^\r\n]*[\r\n])+")
)
"""Pillow reads the header of a PPM a byte at a time: with a long comment for minutes."""

ImageLike = str | Path | bytes | Image.Image | np.ndarray
"""A path, the bytes of a file, an open image, or an array (`height width`, or `height width channels`)."""


class ImageError(ValueError):
    """An image that cannot be opened; the message names the file and the fault.

    Attributes:
        reason: the same for every image with this fault.
    """

    def __init__(self, message: str, reason: str = "an image cannot be read") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (str(self), self.reason)


NOT_THERE, UNKNOWN_FORMAT = "an image is not there", "an image is of no known format"
TOO_LARGE, EMPTY, BROKEN = "an image is too large", "an image has no pixels", "an image is broken"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a file.

    Attributes:
        path: of the file.
        name: used as key in place of the path; a path relative to the data survives a move.
        max_pixels: larger images are refused.
        decoding: way to RGB.
    """

    path: str | Path
    name: str = ""
    max_pixels: int = MAX_PIXELS
    decoding: Decoding = "composed"

    @property
    def key(self) -> str:
        """Stable identifier of the image."""
        return self.name or str(self.path)

    def open(self) -> Image.Image:
        """Return the image as RGB.

        Raises:
            ImageError: not there, not an image, broken, or too large.
        """
        return open_image(self.path, max_pixels=self.max_pixels, decoding=self.decoding)

    def size(self) -> tuple[int, int]:
        """Return width and height, from the header.

        Raises:
            ImageError: not there, not an image, or too large.
        """
        return header_size(self.path, max_pixels=self.max_pixels, decoding=self.decoding)


@dataclass(frozen=True)
class InMemoryImage:
    """An image that is in memory.

    Attributes:
        image: open image, array, or the bytes of a file.
        key: stable identifier; features are not cached without one.
        max_pixels: larger images are refused.
        decoding: way to RGB.
    """

    image: bytes | Image.Image | np.ndarray
    key: str = ""
    max_pixels: int = MAX_PIXELS
    decoding: Decoding = "composed"

    def open(self) -> Image.Image:
        """Return the image as RGB, as that of a file.

        Raises:
            ImageError: broken, too large, or an array of another form.
        """
        return open_image(self.image, max_pixels=self.max_pixels, decoding=self.decoding)

    def size(self) -> tuple[int, int]:
        """Return width and height, from the header.

        Raises:
            ImageError: not an image, or too large.
        """
        return header_size(self.image, max_pixels=self.max_pixels, decoding=self.decoding)


def image_source(image: ImageLike) -> ImageSource:
    """Return the source of an image of any kind; nothing is opened yet."""
    return ImageFile(image) if isinstance(image, str | Path) else InMemoryImage(image)


def open_image(
    source: ImageLike,
    *,
    max_pixels: int = MAX_PIXELS,
    frame: Callable[[int], int] | None = None,
    decoding: Decoding = "composed",
) -> Image.Image:
    """Open an image as 8-bit RGB. The same image gives the same pixels as a file, bytes, open image or array.

    Args:
        source: a path, the bytes of a file, an open image (its current frame), or an array.
        max_pixels: larger images are refused before they are decompressed.
        frame: returns the index of the frame to decode, given the number of frames; None: the first.
        decoding: way to RGB.

    Raises:
        ImageError: not there, not an image, broken, or too large; no regular file.
    """
    return read_header(source, lambda image, name: _decode(image, name, max_pixels, frame, decoding))


def header_size(source: ImageLike, *, max_pixels: int = MAX_PIXELS, decoding: Decoding = "composed") -> tuple[int, int]:
    """Return width and height of what `open_image` would return, without decoding it.

    Raises:
        ImageError: not there, not an image, or too large; no regular file.
    """

    def size(image: Image.Image, name: str) -> tuple[int, int]:
        _check_size(image, name, max_pixels)
        return image.size[::-1] if decoding != "convert" and is_turned(image) else image.size

    return read_header(source, size)


def header_format(source: ImageLike) -> str:
    """Return the format of an image file as Pillow names it (`JPEG`), from the header.

    Raises:
        ImageError: not there, or not an image; no regular file.
    """
    return read_header(source, lambda image, _: image.format or "")


def image_size(image: ImageSource) -> tuple[int, int]:
    """Return width and height of an image; one that does not know them is opened.

    Raises:
        ImageError: the image cannot be read.
    """
    return image.size() if isinstance(image, SizedImage) else image.open().size


def read_header(source: ImageLike, read: Callable[[Image.Image, str], T]) -> T:
    """Return the result of `read`, given an image whose pixels are not loaded and its name. Raises ImageError."""
    name = _name(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about size and broken EXIF
            if isinstance(source, np.ndarray):
                source = array_to_image(source)
            if isinstance(source, Image.Image):
                return read(source, name)
            Image.init()
            formats = [known for known in FORMATS if known in Image.OPEN]
            with Image.open(_checked(source, name), formats=formats) as image:
                return read(image, name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name} is not there", NOT_THERE) from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image of a known format", UNKNOWN_FORMAT) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large to be opened: {error}", TOO_LARGE) from None
    except Exception as error:  # a broken file makes Pillow raise almost anything
        raise ImageError(f"{name} is broken: {error or type(error).__name__}", BROKEN) from error


def _name(source: ImageLike) -> str:
    if isinstance(source, bytes):
        return f"an image of {len(source)} bytes"
    if isinstance(source, Image.Image):
        return f"an image of mode {source.mode}"
    return "an array" if isinstance(source, np.ndarray) else str(source)


def _checked(source: str | Path | bytes, name: str) -> str | Path | BytesIO:
    """Return what Pillow opens: a regular file of bounded size and header, or bytes."""
    if isinstance(source, bytes):
        size, start = len(source), source[:MAX_PPM_HEADER]
    else:
        size, start = _beginning(source, name)
    if size > MAX_BYTES:
        raise ImageError(f"{name} has {size} bytes, {MAX_BYTES} are allowed", TOO_LARGE)
    is_ppm = start[:1] == b"P" and start[1:2] in PPM_KINDS
    if is_ppm and size > MAX_PPM_HEADER and not PPM_HEADER.match(start):
        raise ImageError(f"{name} has a header of more than {MAX_PPM_HEADER} bytes, or is not an image", UNKNOWN_FORMAT)
    return BytesIO(source) if isinstance(source, bytes) else source


def _beginning(path: str | Path, name: str) -> tuple[int, bytes]:
    """Size and first bytes of a regular file."""
    try:
        # Not opened before: opening a FIFO waits for a writer.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name} is no regular file")
        with open(path, "rb") as file:
            start = file.read(2)
            return status.st_size, start + (file.read(MAX_PPM_HEADER) if start[:1] == b"P" else b"")
    except (ImageError, FileNotFoundError):
        raise
    except (OSError, ValueError) as error:  # a name of more than 255 bytes, or with a null character; no permission
        raise ImageError(f"{name} cannot be read: {error}") from None


def _decode(
    image: Image.Image, name: str, max_pixels: int, frame: Callable[[int], int] | None, decoding: Decoding
) -> Image.Image:
    _check_size(image, name, max_pixels)
    if frame is not None:
        _seek(image, frame, name)
    image.load()
    return to_rgb(image, decoding)


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    sides = f"{name} has {width} x {height} pixels"
    if width * height > max_pixels:
        raise ImageError(f"{sides}, {max_pixels} are allowed; scale it down", TOO_LARGE)
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{sides}, sides of {MAX_SIDE} are allowed; cut it into parts", TOO_LARGE)
    if min(image.size) < 1:
        raise ImageError(sides, EMPTY)


def _seek(image: Image.Image, frame: Callable[[int], int], name: str) -> None:
    """Go to a frame of an animated image."""
    stream = getattr(image, "fp", None)
    size = stream.seek(0, 2) if stream is not None else 0
    if size > MAX_VIDEO_BYTES:
        raise ImageError(
            f"{name} has {size} bytes, {MAX_VIDEO_BYTES} are allowed; use a folder of its frames", TOO_LARGE
        )
    total, (width, height) = frame_count(image), image.size
    if total * width * height > MAX_VIDEO_PIXELS:
        raise ImageError(
            f"{name} has {total} frames of {width} x {height} pixels, {MAX_VIDEO_PIXELS} pixels are allowed in all; "
            "use a folder of its frames",
            TOO_LARGE,
        )
    image.seek(frame(total))
