"""Videos in dialogues: the inputs that stand for a video, and the text and tags in place of `<video>`."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmrnn.data.frame_grid import frame_grids
from mmrnn.data.frame_group import FrameGroup, frame_groups
from mmrnn.data.image import MAX_PIXELS
from mmrnn.data.rgb import Decoding
from mmrnn.data.video import DEFAULT_FRAMES, VIDEO, frame_times, frames
from mmrnn.types.sample import TAG, ImageSource, Turn


def video_inputs(
    path: str | Path,
    count: int = DEFAULT_FRAMES,
    *,
    grid: tuple[int, int] | None = None,
    temporal_patch: int = 1,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    decoding: Decoding = "composed",
) -> tuple[ImageSource, ...]:
    """Return the inputs of an encoder that stand for a video: evenly spaced frames, alone or several together.

    Args:
        path: as `frames` takes it.
        count: number of frames.
        grid: rows and columns of frames in one image; None: each is an image.
        temporal_patch: frames of one input, for encoders whose patches span time; each such input has its time.
        name: used in the keys in place of the path.
        max_pixels: larger frames are refused.
        decoding: way to RGB.

    Raises:
        ImageError: `temporal_patch` is above 1, and the length of the video cannot be read.
        ValueError: the frames do not fill the grids.
    """
    shown = frames(path, count, name=name, max_pixels=max_pixels, decoding=decoding)
    if grid is not None:
        return frame_grids(shown, *grid)
    if temporal_patch > 1:
        return frame_groups(shown, frame_times(path, count, max_pixels=max_pixels), temporal_patch)
    return shown


def expand_videos(
    turns: Sequence[Turn], images: Sequence[ImageSource], videos: Sequence[Sequence[ImageSource]]
) -> tuple[tuple[Turn, ...], tuple[ImageSource, ...]]:
    """Replace each `<video>` by an `<image>` for every input that stands for it, behind the time of a group of frames.

    Returns:
        The turns, and images and inputs of videos in the order of their tags.

    Raises:
        ValueError: tags and images, or tags and videos, differ in number.
    """
    tags = [tag for turn in turns if turn.role == "user" for tag in re.findall(f"{TAG}|{VIDEO}", turn.text)]
    for tag, given, what in ((TAG, images, "images"), (VIDEO, videos, "videos")):
        if tags.count(tag) != len(given):
            raise ValueError(f"{tags.count(tag)} tags {tag} for {len(given)} {what}")
    each_image, each_video = iter(images), iter(videos)
    ordered = [image for tag in tags for image in ([next(each_image)] if tag == TAG else next(each_video))]
    written = iter(["".join(map(_tag, video)) for video in videos])
    expanded = [
        replace(turn, text=re.sub(VIDEO, lambda _: next(written), turn.text)) if turn.role == "user" else turn
        for turn in turns
    ]
    return tuple(expanded), tuple(ordered)


def _tag(source: ImageSource) -> str:
    """Tag of an input, behind its time where it has one, as Qwen3-VL's processor writes it."""
    return f"<{source.seconds:.1f} seconds>{TAG}" if isinstance(source, FrameGroup) else TAG
