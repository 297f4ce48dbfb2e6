"""An encoder that reads an image in several views: regions, tiles and the whole."""

from jaxtyping import Float
from torch import Tensor

from mmrnn.encoders.around_tower import AroundTower
from mmrnn.types import Encoder, Layout, Tiling


class TiledEncoder(AroundTower):
    """Another encoder, run on views of an image, whose tokens are joined to those of one image.

    The image comes with values from 0 to 1, as `tiling` asks for it; its views get mean and standard deviation of
    `tower`. Images of one size are encoded together.

    Args:
        tower: a built encoder of square images that emits patches only; its own resizing is not used.
        tiling: the views, and the order of their tokens.

    Raises:
        ValueError: the tower emits other tokens than patches, or takes images that are not square.
    """

    def __init__(self, *, tower: Encoder, tiling: Tiling):
        super().__init__()
        height, width = tower.image.size
        if height != width or tower.image.variable_size:
            raise ValueError(f"a tower that is tiled reads squares of one size, and this one {height} x {width} pixels")
        self.view = tower.layout(height, width)
        if self.view.tokens != self.view.rows * self.view.cols:
            raise ValueError(f"a {type(tower).__name__} emits other tokens than patches; set cls=drop")
        self.tower, self.tiling, self.side = tower, tiling, height
        self.width = tiling.width(tower.width)
        self.image = tiling.image_spec(height)

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of one image of that size in pixels.

        Raises:
            ValueError: an image of that size cannot be cut.
        """
        return self.tiling.layout((height, width), self.side, self.view)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode images of one size.

        Raises:
            ValueError: images of that size cannot be cut.
        """
        size = images.shape[-2], images.shape[-1]
        self.layout(*size)
        views = self.tiling.views(images, self.side)
        mean, std = (
            images.new_tensor(values)[:, None, None] for values in (self.tower.image.mean, self.tower.image.std)
        )
        tokens = self.tower(((views - mean) / std).flatten(0, 1))
        return self.tiling.join(tokens.unflatten(0, views.shape[:2]), size, self.side, self.view)
