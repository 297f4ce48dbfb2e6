"""Vision towers of Qwen2.5-VL and Qwen3.5: images of any size, rotary positions, windows."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.encoders.patch import patch_grid
from mmrnn.layers.recompute import run_block
from mmrnn.layers.rotary import rotate
from mmrnn.types import (
    ChecksKnobs,
    Encoder,
    FiniteFloat,
    ImageSpec,
    Layout,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    reset_layers,
)

EPS = 1e-6
"""Of all norms."""

THETA = 10000.0
"""Base of the rotary frequencies."""

FRAMES = 2
"""Frames that a patch spans; those of a still image are equal."""


class QwenViTBlock(nn.Module):
    """Pre-norm block: LayerNorm and GELU, or (`swiglu`) RMS norm and SwiGLU; all matrices have biases."""

    def __init__(self, width: int, heads: int, ffn: int, swiglu: bool):
        super().__init__()
        self.heads = heads
        norm = nn.RMSNorm if swiglu else nn.LayerNorm
        self.norm1, self.norm2 = norm(width, eps=EPS), norm(width, eps=EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.gate = nn.Linear(width, ffn) if swiglu else None
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)

    def forward(
        self, x: Float[Tensor, "m n e"], angle: Float[Tensor, "1 n half"], mask: Bool[Tensor, "n n"] | None
    ) -> Float[Tensor, "m n e"]:
        """Return the output; `mask` is True where a patch attends to another, None: to all."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, angle), rotate(k, angle)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        y = self.norm2(x)
        inner = F.gelu(self.up(y), approximate="tanh") if self.gate is None else F.silu(self.gate(y)) * self.up(y)
        return x + self.down(inner)


class QwenViT(nn.Module, Encoder, ChecksKnobs):
    """Vision tower without a size of its own: patches row by row, with rotary positions of row and column.

    Images keep about their aspect ratio: both sides become multiples of a block of `merge` patches, and the area stays
    within `min_pixels` and `max_pixels`. The tower of Qwen3.5 has a table of positions beside, resampled to the grid
    of the image; that of Qwen2.5-VL attends inside windows in all blocks but a few. The merger is a connector
    (`PatchMerger`).

    Args:
        width: `e`, of the tokens.
        depth: number of blocks.
        heads: of the attention.
        ffn: hidden width of the MLPs.
        patch: pixels a side of a patch.
        patch_bias: bias of the projection of patches.
        merge: patches a side of a block that the merger makes one token of.
        table: patches a side of the learned table of positions; 0: there is none.
        swiglu: RMS norms and a SwiGLU in place of LayerNorm and GELU.
        window: patches a side of the windows; 0: every patch attends to all.
        whole: blocks, from 0, that attend to the whole image all the same.
        min_pixels: least area of an image, which is enlarged to it.
        max_pixels: largest area of an image, which is shrunk to it.
        temporal_patch: frames of a video that are one input; 1: each is read as a still image.
        video_min_pixels: least sum of the areas of all frames of a video.
        video_max_pixels: largest sum of the areas of all frames of a video.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.

    Raises:
        ValueError: the width does not divide into heads of whole fours, or no image fits between the areas.
    """

    def __init__(
        self,
        *,
        width: PositiveInt = 768,
        depth: PositiveInt = 12,
        heads: PositiveInt = 12,
        ffn: PositiveInt = 3072,
        patch: PositiveInt = 16,
        patch_bias: bool = True,
        merge: PositiveInt = 2,
        table: NonNegativeInt = 48,
        swiglu: bool = False,
        window: NonNegativeInt = 0,
        whole: tuple[NonNegativeInt, ...] = (),
        min_pixels: PositiveInt = 65536,
        max_pixels: PositiveInt = 16777216,
        temporal_patch: Literal[1, 2] = 2,
        video_min_pixels: PositiveInt = 4096,
        video_max_pixels: PositiveInt = 25165824,
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.5, 0.5, 0.5),
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5),
        grad_checkpointing: NonNegativeInt = 0,
    ):
        super().__init__()
        sizes = {"width": width, "heads": heads, "patch": patch, "merge": merge}
        for _, fault in self.knob_faults(sizes | {"min_pixels": min_pixels, "max_pixels": max_pixels}):
            raise ValueError(fault)
        self.width, self.patch, self.merge, self.table = width, patch, merge, table
        self.window, self.whole, self.grad_checkpointing = window, tuple(whole), grad_checkpointing
        cell = patch * merge
        side = math.isqrt(max_pixels) // cell * cell
        self.image = ImageSpec(
            (side, side),
            tuple(mean),
            tuple(std),
            "area",
            multiple=cell,
            pixels=(min_pixels, max_pixels),
            temporal_patch=temporal_patch,
            video_pixels=(video_min_pixels, video_max_pixels),
        )
        self.patch_embed = nn.Conv3d(3, width, (FRAMES, patch, patch), (FRAMES, patch, patch), bias=patch_bias)
        self.positions = nn.Parameter(0.02 * torch.randn(table**2, width)) if table else None
        self.blocks = nn.ModuleList(QwenViTBlock(width, heads, ffn, swiglu) for _ in range(depth))

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self.patch_embed)
        if self.positions is not None:
            nn.init.normal_(self.positions).mul_(0.02)
        reset_layers(self.blocks)

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield heads that do not divide, and areas that hold no image. See `ChecksKnobs`."""
        width, heads, cell = knobs["width"], knobs["heads"], knobs["patch"] * knobs["merge"]
        if width % (4 * heads):
            yield "width", f"width ({width}) must be a multiple of 4 x heads ({heads}): a row and a column turn pairs"
        if knobs["max_pixels"] < max(knobs["min_pixels"], cell**2):
            least = max(knobs["min_pixels"], cell**2)
            yield "max_pixels", f"max_pixels ({knobs['max_pixels']}) must be at least {least}: min_pixels, and a block"

    def layout(self, height: int, width: int) -> Layout:
        """Return the layout of the patches of one image.

        Raises:
            ValueError: a side is no multiple of a block.
        """
        patch_grid(height, width, self.patch * self.merge)
        return patch_grid(height, width, self.patch)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode images of one size, of 3 channels, or pairs of frames, of 6: first those of the first frame.

        Raises:
            ValueError: a side is no multiple of a block.
        """
        grid = self.layout(*images.shape[-2:])
        weight, bias = self.patch_embed.weight, self.patch_embed.bias
        # Both frames of a still image are the same.
        weight = weight.sum(2) if images.shape[1] == 3 else weight.transpose(1, 2).flatten(1, 2)
        x = F.conv2d(images, weight, bias, self.patch).flatten(2).mT
        if self.positions is not None:
            x = x + self.resampled_positions(grid).to(x.dtype)
        angle, near = self.angles(grid, x.device), self.window_mask(grid, x.device)
        for index, block in enumerate(self.blocks):
            x = run_block(block, index, self.grad_checkpointing, x, angle, None if index in self.whole else near)
        return x

    def resampled_positions(self, grid: Layout) -> Float[Tensor, "n e"]:
        """Return the table of positions, bilinear with aligned corners, at the patches of a grid."""
        table = self.positions.unflatten(0, (self.table, self.table)).permute(2, 0, 1)[None]
        found = F.interpolate(table, (grid.rows, grid.cols), mode="bilinear", align_corners=True)
        return found[0].flatten(1).mT

    def angles(self, grid: Layout, device: torch.device) -> Float[Tensor, "1 n half"]:
        """Return the angles of every patch: frequencies turned by its row, then the same turned by its column."""
        count = self.width // self.blocks[0].heads // 4
        frequency = THETA ** (-torch.arange(count, device=device, dtype=torch.float32) / count)
        rows, cols = (torch.arange(size, device=device)[:, None] * frequency for size in (grid.rows, grid.cols))
        pair = torch.cat([rows[:, None].expand(-1, grid.cols, -1), cols[None].expand(grid.rows, -1, -1)], dim=-1)
        return pair.flatten(0, 1)[None]

    def window_mask(self, grid: Layout, device: torch.device) -> Bool[Tensor, "n n"] | None:
        """Return whether two patches lie in one window, cut from the top left; None: there are no windows."""
        if not self.window:
            return None
        rows, cols = (torch.arange(size, device=device) // self.window for size in (grid.rows, grid.cols))
        number = (rows[:, None] * grid.cols + cols).flatten()
        return number[:, None] == number
