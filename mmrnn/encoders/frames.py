"""An encoder that reads several frames of a video as one input."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from mmrnn.encoders.around_tower import AroundTower
from mmrnn.types import Encoder, Layout, PositiveInt


class FrameEncoder(AroundTower):
    """Another encoder, run on each of several frames, whose grids of patches lie below one another in order of time.

    A connector behind it joins them (`FramePool`). A still image counts as a video whose frames are equal.

    Args:
        tower: a built encoder of images that emits patches only.
        temporal_patch: frames of one input; the data put as many into one (`data.temporal_patch`).

    Raises:
        ValueError: the tower emits other tokens than patches, or spans time itself.
    """

    def __init__(self, *, tower: Encoder, temporal_patch: PositiveInt = 4):
        super().__init__()
        if tower.image.temporal_patch > 1 or tower.image.resize == "area":
            raise ValueError(f"a {type(tower).__name__} has its own way to read videos; use it without FrameEncoder")
        self.tower, self.temporal_patch, self.width = tower, temporal_patch, tower.width
        self.image = replace(tower.image, temporal_patch=temporal_patch)
        self.layout(*tower.image.size)

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the patches of all frames.

        Raises:
            ValueError: the tower emits other tokens than patches.
        """
        view = self.tower.layout(height, width)
        if view.tokens != view.rows * view.cols:
            raise ValueError(f"a {type(self.tower).__name__} emits other tokens than patches; set cls=drop")
        return replace(view, rows=self.temporal_patch * view.rows, frames=self.temporal_patch)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode inputs of one size: frames one after the other on the axis of the channels, or still images.

        Raises:
            ValueError: an input has another number of frames.
        """
        channels = len(self.image.mean)
        if images.shape[1] == channels:
            return self.tower(images).repeat(1, self.temporal_patch, 1)
        if images.shape[1] != channels * self.temporal_patch:
            raise ValueError(f"an input has {images.shape[1]} channels, and {self.temporal_patch} frames are read")
        frames = images.unflatten(1, (self.temporal_patch, channels))  # m t c H W
        return self.tower(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).flatten(1, 2)
