"""Several frames of a video as one image, so that together they take the tokens of one (arXiv 2403.18406)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmrnn.types import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """Frames side by side, row by row in the order of time; nothing is opened before `open`.

    Attributes:
        frames: rows times columns of them.
        rows: of the grid.
        cols: of the grid.
    """

    frames: tuple[ImageSource, ...]
    rows: int
    cols: int

    @property
    def key(self) -> str:
        """Stable identifier of the grid."""
        return f"{self.rows}x{self.cols}:{self.frames[0].key}-{self.frames[-1].key}"

    def open(self) -> "Image":
        """Return the grid as RGB: every frame scaled to the size of the first (bicubic), the whole as large as that.

        Raises:
            ImageError: a frame cannot be opened.
        """
        from PIL import Image

        opened = [frame.open() for frame in self.frames]
        width, height = opened[0].size
        cell = max(width // self.cols, 1), max(height // self.rows, 1)
        whole = Image.new("RGB", (cell[0] * self.cols, cell[1] * self.rows))
        for number, image in enumerate(opened):
            row, col = divmod(number, self.cols)
            whole.paste(image.resize(cell, Image.Resampling.BICUBIC), (col * cell[0], row * cell[1]))
        return whole


def frame_grids(frames: Sequence[ImageSource], rows: int, cols: int) -> tuple[FrameGrid, ...]:
    """Return consecutive frames as images of `rows` x `cols` frames each.

    Raises:
        ValueError: the frames do not fill the grids.
    """
    size = rows * cols
    if size < 1 or not frames or len(frames) % size:
        raise ValueError(f"frames ({len(frames)}) must be a multiple of {rows} x {cols}, the frames of a grid")
    return tuple(FrameGrid(tuple(frames[start : start + size]), rows, cols) for start in range(0, len(frames), size))
