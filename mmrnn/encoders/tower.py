"""Base class of the vision towers: class token, extra norm, dtype and packed weights."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.layers.linear import prepack
from mmrnn.layers.rebuilt import Rebuilt
from mmrnn.types import Encoder, ImageSpec, Layout, PositiveFloat, PositiveInt

Cls = Literal["drop", "first", "last"]
"""Position of the class token. Register tokens are always dropped."""

Resize = Literal["squash", "crop", "crop_rounded", "pad"]
"""Way to make an image square, see `ImageSpec`."""

TrunkDtype = Literal["float32", "bfloat16", "float16"]
"""Of the parameters of a tower."""

Recompute = Literal[0, 1]
"""Recompute blocks in the backward pass: none, or all of a tower."""

PosInterp = Literal["antialias", "plain"]
"""Bicubic resampling of a position table for another grid."""


class Tower(Rebuilt, Encoder):
    """Network (`trunk`) from an image to a grid of tokens, perhaps with a class token.

    Subclasses build the trunk and define `forward_trunk`.

    Args:
        width: `e`, of the tokens.
        stride: pixels from one token of the grid to the next.
        image: image specification that the trunk was built for.
        has_cls: the trunk has a class token.
        cls: position of the class token among the tokens.
        extra_norm: LayerNorm behind the trunk and not part of it, `ln_vision` of BLIP-2 (arXiv 2301.12597). True: with
            eps 1e-5; a number: with that eps.
        dtype: of the trunk's parameters, for example bfloat16 for a frozen trunk. Tokens have the dtype of the images.
        prepack_weights: keep a packed copy of the weights for CPU inference. The results are the same; the speed-up
            depends on the processor.
        grad_checkpointing: 1: recompute every block of a trained tower in the backward pass to save memory.
        dynamic: accept images of other sizes than that of `image`.

    Raises:
        ValueError: `cls` or `dtype` is unknown, or there is no class token.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        width: PositiveInt,
        stride: int,
        image: ImageSpec,
        has_cls: bool = False,
        cls: Cls = "drop",
        extra_norm: bool | PositiveFloat = False,
        dtype: TrunkDtype | None = None,
        prepack_weights: bool = False,
        dynamic: bool = False,
        grad_checkpointing: Recompute = 0,
    ):
        super().__init__()
        if cls not in ("drop", "first", "last"):
            raise ValueError(f"cls ({cls!r}) must be drop, first or last")
        if cls != "drop" and not has_cls:
            raise ValueError(f"cls ({cls!r}) needs a class token, and this tower has none; set cls=drop")
        self.trunk = trunk if dtype is None else trunk.to(_floating(dtype))
        if prepack_weights:
            prepack(self.trunk)
        if grad_checkpointing:
            self.trunk.set_grad_checkpointing(True)
        eps = 1e-5 if extra_norm is True else float(extra_norm)
        self.extra_norm = nn.LayerNorm(width, eps=eps) if extra_norm else nn.Identity()
        self.width = width
        self.stride = stride
        self.image = image
        self.cls = cls
        self.dynamic = dynamic

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of one image of that size in pixels.

        Raises:
            ValueError: the tower does not accept that size.
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
        """Encode images.

        Raises:
            ValueError: the tower does not accept their size.
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
        """Compute the class token, if any, and the row-major patches."""
        raise NotImplementedError


def num_blocks(layer: int, depth: int) -> int:
    """Number of blocks that must run for the output of block `layer` (-1: the last, -2: the one before).

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
