"""Frames of a video that an encoder reads as one input: its patches span time as well (Qwen3-VL, Qwen3.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmrnn.data.image import image_size
from mmrnn.types import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class FrameGroup:
    """Consecutive frames of a video; nothing is opened before `open`.

    Attributes:
        frames: as many as a patch spans.
        of: number of frames taken from the video, which share its budget of pixels.
        seconds: time of the group, the mean of those of its first and last frame.
    """

    frames: tuple[ImageSource, ...]
    of: int
    seconds: float

    @property
    def key(self) -> str:
        """Stable identifier of the group."""
        return "+".join(frame.key for frame in self.frames)

    def open(self) -> "Image":
        """Return the first frame as RGB, which shows the group in reports.

        Raises:
            ImageError: the frame cannot be opened.
        """
        return self.frames[0].open()

    def size(self) -> tuple[int, int]:
        """Return width and height of the frames.

        Raises:
            ImageError: the first frame cannot be read.
        """
        return image_size(self.frames[0])


def frame_groups(frames: Sequence[ImageSource], times: Sequence[float], size: int) -> tuple[FrameGroup, ...]:
    """Return the frames of a video in groups of `size`; the last frame is repeated where they do not fill the last one.

    Args:
        frames: in the order of time, at least one.
        times: of the frames, in seconds.
        size: frames of a group.
    """
    fill = -len(frames) % size
    shown, seconds = [*frames, *[frames[-1]] * fill], [*times, *[times[-1]] * fill]
    return tuple(
        FrameGroup(tuple(shown[i : i + size]), len(frames), (seconds[i] + seconds[i + size - 1]) / 2)
        for i in range(0, len(shown), size)
    )
