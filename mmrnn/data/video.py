"""Videos as images: evenly spread frames of a file or of a folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.data.image import PIXELS, ImageError, open_image
from mmrnn.io.optional import require
from mmrnn.types.sample import TAG, ImageSource, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEO = "<video>"
"""Marks in the text of a user's turn where the frames of a video stand."""

FRAMES = 8
"""Frames that a video is shown by, where nothing else is said (VILA)."""

MAX_FRAMES = 100_000
"""Images of a folder that are looked at, and frames of a file that are decoded on the way to one of them."""

MOVING = (".gif", ".webp", ".png", ".apng", ".avif")
"""What Pillow reads; other files are for PyAV."""

CONTAINERS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp"), "mov"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".avi",), "avi"),
    **dict.fromkeys((".mpg", ".mpeg"), "mpeg"),
}
"""The demuxer of each kind of file. FFmpeg is not left to guess: a playlist in disguise would open other files."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame `number` (from 0) of `of` that are spread evenly over a video; nothing is opened before `open`."""

    path: str | Path
    number: int
    of: int
    name: str = ""
    pixels: int = PIXELS

    @property
    def key(self) -> str:
        return f"{self.name or self.path}#{self.number + 1}/{self.of}"

    def open(self) -> "Image":
        """The frame as RGB.

        Raises:
            ImageError: not there, not a video, broken, or too large.
            ImportError: only PyAV could read it, and it is not installed.
        """
        path, choose = Path(self.path), partial(frame_indices, number=self.number, of=self.of)
        if path.is_dir():
            files = listed(path)
            return open_image(files[choose(len(files))], pixels=self.pixels)
        if path.suffix.lower() in MOVING:
            return open_image(path, pixels=self.pixels, frame=choose)
        return _decoded(path, self.number, self.of, self.pixels)


def frames(path: str | Path, count: int = FRAMES, *, name: str = "", pixels: int = PIXELS) -> tuple[Frame, ...]:
    """So many frames of a video, from its first to its last: an animated image, a folder of images (in the order
    of their names, numbers as numbers), or, with PyAV, a file of film.
    """
    return tuple(Frame(path, number, count, name, pixels) for number in range(count))


def frame_indices(total: int, number: int, of: int) -> int:
    """Which of `total` frames is the `number`-th of `of` evenly spread ones; fewer frames come several times."""
    return (total - 1) // 2 if of == 1 else round(number * (total - 1) / (of - 1))


def expand_videos(
    turns: Sequence[Turn], images: Sequence[ImageSource], videos: Sequence[Sequence[ImageSource]]
) -> tuple[tuple[Turn, ...], tuple[ImageSource, ...]]:
    """The turns with an `<image>` for every frame in the place of each `<video>`, and all images in their order.

    Raises:
        ValueError: the tags do not agree with the number of images or videos.
    """
    tags = [tag for turn in turns if turn.role == "user" for tag in re.findall(f"{TAG}|{VIDEO}", turn.text)]
    for tag, given, what in ((TAG, images, "images"), (VIDEO, videos, "videos")):
        if tags.count(tag) != len(given):
            raise ValueError(f"{tags.count(tag)} tags {tag} for {len(given)} {what}")
    alone, moving = iter(images), iter(videos)
    found = [image for tag in tags for image in ([next(alone)] if tag == TAG else next(moving))]
    counts = iter([len(video) for video in videos])
    spelled = [
        replace(turn, text=re.sub(VIDEO, lambda _: TAG * next(counts), turn.text)) if turn.role == "user" else turn
        for turn in turns
    ]
    return tuple(spelled), tuple(found)


def listed(folder: Path) -> list[Path]:
    """The images in a folder, `2.png` before `10.png`.

    Raises:
        ImageError: there is none, or too many to be looked at.
    """
    every = list(islice(folder.iterdir(), MAX_FRAMES + 1))
    if len(every) > MAX_FRAMES:
        raise ImageError(f"{folder} holds more than {MAX_FRAMES} files; take fewer frames")
    kinds = {*MOVING, ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff"}
    found = [path for path in every if path.suffix.lower() in kinds]
    if not found:
        raise ImageError(f"{folder} holds no images")
    return sorted(found, key=_in_order)


def _in_order(path: Path) -> list[tuple[int, str]]:
    runs = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(run), "") if run[0] in "0123456789" else (-1, run) for run in runs]


def _decoded(path: Path, number: int, of: int, pixels: int) -> "Image":
    """A frame of a film, read from the nearest key frame before it."""
    if not path.is_file():
        raise ImageError(f"{path} is not there")
    if path.suffix.lower() not in CONTAINERS:
        raise ImageError(f"{path} is no video of a known kind; put its frames into a folder and name that")
    try:
        av = require("av", "PyAV", wanted_by=path.name, extra="video")
    except ImportError as error:
        raise ImportError(f"{error}; or put its frames into a folder and name that") from error
    try:
        with path.open("rb") as file, av.open(file, format=CONTAINERS[path.suffix.lower()]) as film:
            [stream, *_] = film.streams.video or [None]
            if stream is None:
                raise ImageError(f"{path} has no images")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > pixels:
                raise ImageError(f"{path} has {width} x {height} pixels, {pixels} are allowed; scale it down")
            rate = float(stream.average_rate or 0)
            total = stream.frames or int((film.duration or 0) / 1e6 * rate) or 1
            seconds = frame_indices(total, number, of) / rate if rate else 0.0
            wanted = (stream.start_time or 0) + int(seconds / stream.time_base)
            film.seek(wanted, stream=stream)
            last = None
            for last in islice(film.decode(stream), MAX_FRAMES):
                if last.pts is None or last.pts >= wanted:
                    break
            if last is None:
                raise ImageError(f"{path} has no images")
            return last.to_image().convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # a broken file makes FFmpeg raise almost anything
        raise ImageError(f"{path} is broken: {error or type(error).__name__}") from error
