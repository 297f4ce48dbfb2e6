"""Several towers that look at the same image, their tokens joined on the channels (VisualRWKV-HD, Prismatic)."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.encoders.tower import Resize
from mmrnn.types import Encoder, ImageSpec, Layout


class FusedEncoder(nn.Module, Encoder):
    """Towers side by side. A finer grid comes down to the coarsest by moving neighbours into the channels.

    The image is brought to the largest of their sizes once, with values 0 to 1; each tower gets it at its own size,
    scaled with antialias, and with its own mean and deviation. Only patches are joined: towers must emit no others.

    Args:
        towers: built encoders; their order is that of the channels.

    Raises:
        ValueError: none, tokens beside the patches, or grids that do not divide.
    """

    def __init__(self, *, towers: Sequence[nn.Module], resize: Resize = "squash"):
        super().__init__()
        if not towers:
            raise ValueError("towers () must name at least one encoder")
        self.towers = nn.ModuleList(towers)
        layouts = [tower.layout(*tower.image.size) for tower in towers]
        for tower, layout in zip(towers, layouts, strict=True):
            if layout.tokens != layout.rows * layout.cols:
                raise ValueError(f"a {type(tower).__name__} emits tokens beside its patches; set cls=drop")
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
        """The towers."""
        return tuple(self.towers)

    def layout(self, height: int, width: int) -> Layout:
        """How the tokens of an image of that one size lie.

        Raises:
            ValueError: another size.
        """
        if (height, width) != self.image.size:
            built = " x ".join(map(str, self.image.size))
            raise ValueError(f"image size ({height} x {width}) must be {built}, for which these towers were built")
        return self.grid

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        self.layout(*images.shape[-2:])
        return self.join([self.prepare(tower.image, images) for tower in self.towers])

    def prepare(self, spec: ImageSpec, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m c h w"]:
        """The image as one of the towers wants it."""
        if spec.size != self.image.size:
            images = F.interpolate(images.float(), spec.size, mode="bicubic", antialias=True).to(images)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (spec.mean, spec.std))
        return (images - mean) / std

    def join(self, inputs: Sequence[Float[Tensor, "m c _ _"]]) -> Float[Tensor, "m n e"]:
        """The tokens of images that were prepared for each tower apart, as the original projects do it."""
        found = []
        for tower, images in zip(self.towers, inputs, strict=True):
            layout = tower.layout(*images.shape[-2:])
            maps = rearrange(tower(images), "m (rows cols) e -> m e rows cols", rows=layout.rows)
            maps = F.pixel_unshuffle(maps, layout.rows // self.grid.rows)
            found.append(rearrange(maps, "m e rows cols -> m (rows cols) e"))
        return torch.cat(found, dim=-1)
