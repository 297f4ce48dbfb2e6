"""Videos as images: frames of a file or a folder, evenly spaced or one after the other."""

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.data.animated import frame_count
from mmrnn.data.image import (
    BROKEN,
    EMPTY,
    MAX_PIXELS,
    NOT_THERE,
    TOO_LARGE,
    UNKNOWN_FORMAT,
    ImageError,
    header_size,
    open_image,
    read_header,
)
from mmrnn.data.rgb import Decoding
from mmrnn.io.optional import require

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEO = "<video>"
"""Placeholder of a video in a user turn."""

DEFAULT_FRAMES = 8
"""Frames of a video (VILA)."""

UNTIMED_FPS = 24.0
"""Frames a second of a video without times, as transformers assumes."""

MAX_FRAMES = 100_000
"""Most files of a folder, and most frames decoded to reach one."""

ANIMATED = (".gif", ".webp", ".png", ".apng", ".avif")
"""Files that Pillow reads; others need PyAV."""

IMAGE_SUFFIXES = frozenset({*ANIMATED, ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff"})
"""Endings, in lower case, of the files of a folder that are taken for images."""

CONTAINERS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp"), "mov"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".avi",), "avi"),
    **dict.fromkeys((".mpg", ".mpeg"), "mpeg"),
}
"""FFmpeg demuxer by suffix. FFmpeg must not guess it: a disguised playlist would open other files."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One of several evenly spaced frames of a video; nothing is opened before `open`.

    Attributes:
        path: of the file or folder.
        number: of the frame, counted from 0.
        of: number of frames taken from the video.
        name: used in the key in place of the path.
        max_pixels: larger frames are refused.
        decoding: way to RGB, of the images of a folder and of an animated image.
    """

    path: str | Path
    number: int
    of: int
    name: str = ""
    max_pixels: int = MAX_PIXELS
    decoding: Decoding = "composed"

    @property
    def key(self) -> str:
        """Stable identifier of the frame."""
        return f"{self.name or self.path}#{self.number + 1}/{self.of}"

    def open(self) -> "Image":
        """Return the frame as RGB.

        Raises:
            ImageError: not there, not a video, broken, or too large.
            ImportError: the format needs PyAV, which is not installed.
        """
        path = Path(self.path)
        if os.path.isdir(path):
            files = list_images(path)
            return open_image(files[self._index(len(files))], max_pixels=self.max_pixels, decoding=self.decoding)
        if path.suffix.lower() in ANIMATED:
            return open_image(path, max_pixels=self.max_pixels, frame=self._index, decoding=self.decoding)
        return _decode(path, self._index, self.max_pixels)

    def _index(self, total: int) -> int:
        """Index of the frame in a video of `total` frames."""
        return frame_indices(total, self.of)[self.number]


def frames(
    path: str | Path,
    count: int = DEFAULT_FRAMES,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    decoding: Decoding = "composed",
) -> tuple[Frame, ...]:
    """Return evenly spaced frames of a video, from its first to its last; frames of a short video repeat.

    Args:
        path: an animated image, a folder of images (in natural order of their names), or, with PyAV, a video file.
        count: number of frames.
        name: used in the keys in place of the path.
        max_pixels: larger frames are refused.
        decoding: way to RGB.
    """
    return tuple(Frame(path, number, count, name, max_pixels, decoding) for number in range(count))


def frame_indices(total: int, count: int) -> list[int]:
    """Return the indices of `count` evenly spaced frames among `total`; one frame is taken from the middle."""
    if count == 1:
        return [(total - 1) // 2]
    return [round(number * (total - 1) / (count - 1)) for number in range(count)]


def frame_times(path: str | Path, count: int, *, max_pixels: int = MAX_PIXELS) -> list[float]:
    """Return the times of `count` evenly spaced frames of a video in seconds: their index by the frames a second.

    Raises:
        ImageError: not there, not a video, broken, or too large.
        ImportError: the format needs PyAV, which is not installed.
    """
    path = Path(path)
    if os.path.isdir(path):
        total, rate = len(list_images(path)), UNTIMED_FPS
    elif path.suffix.lower() in ANIMATED:
        total, rate = _animation_length(path, max_pixels)
        rate = rate or UNTIMED_FPS
    else:
        with _container(path, max_pixels) as (container, stream):
            total, rate = _stream_length(container, stream)
            rate = rate or UNTIMED_FPS
    return [index / rate for index in frame_indices(total, count)]


def list_images(folder: Path) -> list[Path]:
    """List the images in a folder in natural order: `2.png` before `10.png`.

    Raises:
        ImageError: the folder cannot be read, or holds no images or too many files.
    """
    try:
        every = list(islice(folder.iterdir(), MAX_FRAMES + 1))
    except OSError as error:
        raise ImageError(f"{folder} cannot be read: {error.strerror}") from None
    if len(every) > MAX_FRAMES:
        raise ImageError(f"{folder} holds more than {MAX_FRAMES} files; take fewer frames")
    found = [path for path in every if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise ImageError(f"{folder} holds no images", EMPTY)
    return sorted(found, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    runs = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(run), "") if run[0] in "0123456789" else (-1, run) for run in runs]


def video_frames(path: str | Path, *, fps: float | None = None, max_pixels: int = MAX_PIXELS) -> "Iterator[Image]":
    """Yield the frames of a video as RGB, in order; each is decoded when it is asked for.

    Args:
        path: of a video file (with PyAV), an animated image, or a folder of images in natural order of their names.
        fps: frames a second to take of a video file, evenly spaced; None: all. The other two have no times.
        max_pixels: larger frames are refused.

    Raises:
        ImageError: not there, not a video, broken, or too large.
        ImportError: the format needs PyAV, which is not installed.
        ValueError: `fps` is not positive, or given for a video without times.
    """
    path = Path(path)
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps ({fps}) must be a positive number; None takes all frames")
    timed = not os.path.isdir(path) and path.suffix.lower() not in ANIMATED
    if fps is not None and not timed:
        raise ValueError(f"{path} has frames without times; leave out fps ({fps}), or take a video file")
    return _timed_frames(path, fps, max_pixels) if timed else _untimed_frames(path, max_pixels)


def _untimed_frames(path: Path, max_pixels: int) -> "Iterator[Image]":
    if os.path.isdir(path):
        for file in list_images(path):
            yield open_image(file, max_pixels=max_pixels)
        return
    total = [1]

    def choose(count: int) -> int:
        total[0] = count
        return index

    index = 0
    while index < total[0]:
        yield open_image(path, max_pixels=max_pixels, frame=choose)
        index += 1


def _timed_frames(path: Path, fps: float | None, max_pixels: int) -> "Iterator[Image]":
    with _container(path, max_pixels) as (container, stream):
        due = None
        for frame in container.decode(stream):
            time = frame.time
            if fps is not None and time is not None:
                if due is not None and time < due - 1e-6:
                    continue
                due = (time if due is None else due) + 1 / fps
            yield open_image(frame.to_image(), max_pixels=max_pixels)


def _decode(path: Path, choose: Callable[[int], int], max_pixels: int) -> "Image":
    """Frame of a video file that `choose` picks given their number, decoded from the nearest key frame before it."""
    with _container(path, max_pixels) as (container, stream):
        total, rate = _stream_length(container, stream)
        seconds = choose(total) / rate if rate else 0.0
        wanted = (stream.start_time or 0) + int(seconds / stream.time_base)
        container.seek(wanted, stream=stream)
        last = None
        for last in islice(container.decode(stream), MAX_FRAMES):
            if last.pts is None or last.pts >= wanted:
                break
        if last is None:
            raise ImageError(f"{path} has no images", EMPTY)
        return open_image(last.to_image(), max_pixels=max_pixels)


def _animation_length(path: Path, max_pixels: int) -> tuple[int, float]:
    """Number of frames of an animated image, and frames a second by its first; 0: not known."""
    header_size(path, max_pixels=max_pixels)

    def read(image: "Image", _: str) -> tuple[int, float]:
        milliseconds = image.info.get("duration") or 0
        return frame_count(image), 1000 / milliseconds if milliseconds else 0.0

    return read_header(path, read)


def _stream_length(container: Any, stream: Any) -> tuple[int, float]:
    """Number of frames, and frames a second; 0: not known."""
    rate = float(stream.average_rate or 0)
    return stream.frames or int((container.duration or 0) / 1e6 * rate) or 1, rate


@contextmanager
def _container(path: Path, max_pixels: int) -> Iterator[tuple[Any, Any]]:
    """Context with an open video file and its stream of images; faults in it become `ImageError`."""
    if not os.path.isfile(path):
        raise ImageError(f"{path} is not there", NOT_THERE)
    if path.suffix.lower() not in CONTAINERS:
        raise ImageError(f"{path} is no video of a known format; use a folder of its frames", UNKNOWN_FORMAT)
    try:
        av = require("av", "PyAV", wanted_by=path.name, extra="video")
    except ImportError as error:
        raise ImportError(f"{error}; or use a folder of its frames") from error
    try:
        with path.open("rb") as file, av.open(file, format=CONTAINERS[path.suffix.lower()]) as container:
            [stream, *_] = container.streams.video or [None]
            if stream is None:
                raise ImageError(f"{path} has no images", EMPTY)
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > max_pixels:
                raise ImageError(f"{path} has {width} x {height} pixels, {max_pixels} are allowed", TOO_LARGE)
            yield container, stream
    except ImageError:
        raise
    except Exception as error:  # a broken file makes FFmpeg raise almost anything
        raise ImageError(f"{path} is broken: {error or type(error).__name__}", BROKEN) from error
