"""What every tower does with the tokens of its network: which are kept, in which order, normed by what."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.layers.linear import prepack
from mmrnn.types import Encoder, ImageSpec, Layout

Cls = Literal["drop", "first", "last"]
"""Where the class token goes. Register tokens are always dropped."""

Resize = Literal["squash", "crop", "pad"]
PosInterp = Literal["antialias", "plain"]


class Tower(nn.Module, Encoder):
    """A network (`trunk`) that makes a grid of tokens of an image, perhaps with a class token beside it.

    Subclasses build the trunk and say how it is read.

    Args:
        width: of the tokens.
        stride: pixels from one token of the grid to the next.
        image: the image the trunk was built for.
        has_cls: the trunk makes a class token.
        extra_norm: a LayerNorm behind the trunk that is none of its own: `ln_vision` of BLIP-2 (arXiv 2301.12597).
            True: eps 1e-5; a number: that eps.
        dtype: of the trunk's parameters; a frozen trunk can run in bfloat16. The tokens come in the dtype of the
            images all the same.
        prepack_weights: keep a second copy of the weights in the order in which the matrix library of the CPU multiplies them,
            and use it where no gradients are wanted. Same numbers; what it gains depends on the processor.
        dynamic: other sizes than that of `image` can be read too.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        width: int,
        stride: int,
        image: ImageSpec,
        has_cls: bool = False,
        cls: Cls = "drop",
        extra_norm: bool | float = False,
        dtype: str | None = None,
        prepack_weights: bool = False,
        dynamic: bool = False,
    ):
        super().__init__()
        if cls not in ("drop", "first", "last"):
            raise ValueError(f"cls ({cls!r}) must be drop, first or last")
        if cls != "drop" and not has_cls:
            raise ValueError(f"cls ({cls!r}) asks for a class token, and this tower has none; set cls=drop")
        self.trunk = trunk if dtype is None else trunk.to(_floating(dtype))
        if prepack_weights:
            prepack(self.trunk)
        eps = 1e-5 if extra_norm is True else float(extra_norm)
        self.extra_norm = nn.LayerNorm(width, eps=eps) if extra_norm else nn.Identity()
        self.width = width
        self.stride = stride
        self.image = image
        self.cls = cls
        self.dynamic = dynamic

    def layout(self, height: int, width: int) -> Layout:
        """How the tokens of an image of so many pixels lie.

        Raises:
            ValueError: the tower cannot read an image of that size.
        """
        if self.dynamic and (height % self.stride or width % self.stride):
            raise ValueError(f"image size ({height} x {width}) must be a multiple of patch ({self.stride})")
        if not self.dynamic and (height, width) != self.image.size:
            built = " x ".join(map(str, self.image.size))
            raise ValueError(f"image size ({height} x {width}) must be {built}, for which this tower was built")
        return Layout(
            rows=height // self.stride,
            cols=width // self.stride,
            prefix=int(self.cls == "first"),
            suffix=int(self.cls == "last"),
        )

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """
        Raises:
            ValueError: the images have a size that the tower cannot read.
        """
        self.layout(*images.shape[-2:])
        cls, patches = self.forward_trunk(images.to(next(self.trunk.parameters()).dtype))
        if self.cls == "first":
            patches = torch.cat((cls, patches), dim=1)
        elif self.cls == "last":
            patches = torch.cat((patches, cls), dim=1)
        return self.extra_norm(patches.to(images.dtype))

    def forward_trunk(
        self, images: Float[Tensor, "m c H W"]
    ) -> tuple[Float[Tensor, "m 1 e"] | None, Float[Tensor, "m p e"]]:
        """The class token, where there is one, and the patches row by row."""
        raise NotImplementedError


def kept_blocks(layer: int, depth: int) -> int:
    """How many of `depth` blocks have to run for the output of block `layer` (-1 the last, -2 the one before).

    Raises:
        ValueError: there is no such block.
    """
    if not -depth <= layer < depth:
        raise ValueError(f"layer ({layer}) must lie between {-depth} and {depth - 1}: the tower has {depth} blocks")
    return layer % depth + 1


def _floating(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype ({name!r}) must be float32, bfloat16 or float16")
    return dtype
