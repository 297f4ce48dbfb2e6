"""Frames of an image that Pillow has opened."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class Animated(Protocol):
    """Image of a format of Pillow that can hold several frames; those of other formats have no such attribute.

    Attributes:
        n_frames: their number, counted when it is read first.
    """

    n_frames: int


def frame_count(image: "Image") -> int:
    """Return the number of frames of an opened image: 1 in a format that cannot hold more."""
    return image.n_frames if isinstance(image, Animated) else 1
