"""Several encoders side by side, their tokens concatenated on the channels (VisualRWKV-HD, Prismatic)."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.encoders.tower import Resize
from mmrnn.types import Encoder, ImageSpec, Layout


class FusedEncoder(nn.Module, Encoder):
    """Encoders of one image, concatenated on the channels; finer grids are reduced to the coarsest by space-to-depth.

    The data side resizes an image to the largest of the encoders' sizes, with values from 0 to 1. Each encoder gets it
    resized to its own size (bicubic, antialias), with its own mean and standard deviation. The encoders must emit
    patches only.

    Args:
        towers: built encoders, in the order of the channels.

    Raises:
        ValueError: there are no towers, one emits other tokens than patches, or the grids do not divide.
    """

    def __init__(self, *, towers: Sequence[Encoder], resize: Resize = "squash"):
        super().__init__()
        if not towers:
            raise ValueError("towers () must name at least one encoder")
        self.towers = nn.ModuleList(towers)
        layouts = [tower.layout(*tower.image.size) for tower in towers]
        for tower, layout in zip(towers, layouts, strict=True):
            if layout.tokens != layout.rows * layout.cols:
                raise ValueError(f"a {type(tower).__name__} emits other tokens than patches; set cls=drop")
        rows, cols = min((layout.rows, layout.cols) for layout in layouts)
        if any(layout.rows % rows or layout.cols % cols for layout in layouts):
            grids = ", ".join(f"{layout.rows} x {layout.cols}" for layout in layouts)
            raise ValueError(f"the grids {grids} must be multiples of the coarsest; change the sizes of the towers")
        self.grid = Layout(rows, cols)
        self.width = sum(
            tower.width * (layout.rows // rows) * (layout.cols // cols)
            for tower, layout in zip(towers, layouts, strict=True)
        )
        size = max(tower.image.size for tower in towers)
        self.image = ImageSpec(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resize)

    def inner_encoders(self) -> Sequence[Encoder]:
        """Encoders that are fused, each with weights of its own."""
        return tuple(self.towers)

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of one image of the built size.

        Raises:
            ValueError: the image has another size.
        """
        if (height, width) != self.image.size:
            built = " x ".join(map(str, self.image.size))
            raise ValueError(f"image size ({height} x {width}) must be {built}, for which these towers were built")
        return self.grid

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode images of the built size.

        Raises:
            ValueError: they have another size.
        """
        self.layout(*images.shape[-2:])
        return self.join([self.prepare(tower.image, images) for tower in self.towers])

    def prepare(self, spec: ImageSpec, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m c h w"]:
        """Resize and normalise images for one of the towers."""
        if spec.size != self.image.size:
            images = F.interpolate(images.float(), spec.size, mode="bicubic", antialias=True).to(images)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (spec.mean, spec.std))
        return (images - mean) / std

    def join(self, inputs: Sequence[Float[Tensor, "m c _ _"]]) -> Float[Tensor, "m n e"]:
        """Encode inputs that were prepared for each tower separately, as in the original projects."""
        joined = []
        for tower, images in zip(self.towers, inputs, strict=True):
            layout = tower.layout(*images.shape[-2:])
            maps = rearrange(tower(images), "m (rows cols) e -> m e rows cols", rows=layout.rows)
            maps = F.pixel_unshuffle(maps, layout.rows // self.grid.rows)
            joined.append(rearrange(maps, "m e rows cols -> m (rows cols) e"))
        return torch.cat(joined, dim=-1)
