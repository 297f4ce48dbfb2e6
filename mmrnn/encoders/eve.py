"""Patch embedding layer of EVE (arXiv 2406.11832)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.encoders.patch import patch_grid
from mmrnn.layers.latent_attention import LatentAttention, WholeHeads
from mmrnn.types import Encoder, FiniteFloat, ImageSpec, Layout, PositiveFloat, PositiveInt, reset_layers


class EVECrossAttention(LatentAttention):
    """Cross-attention with a norm on queries and source; scores are scaled by the full width, as released."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, width, heads, width // heads, bias=True)
        self.norm_query = nn.LayerNorm(width)
        self.norm_source = nn.LayerNorm(width)

    def forward(self, query: Float[Tensor, "m q e"], source: Float[Tensor, "m n e"]) -> Float[Tensor, "m q e"]:
        """Attend from `query` to `source`, without a residual."""
        return self.attend(self.norm_query(query), self.norm_source(source), scale=query.shape[-1] ** -0.5)


class EVEPatchEmbed(nn.Module, Encoder, WholeHeads):
    """Convolution, cross-attention in windows of patches, a class token, and a separator at the end of each row.

    Each window emits one token: the mean of its patches attends to them. The class token attends to all windows. Images
    keep their aspect ratio: the long side becomes `size`, the short side is rounded up to whole windows.

    Args:
        patch: pixels a side of a patch.
        width: `e`, of the tokens.
        size: of the long side in pixels.
        window: patches a side of a window.
        multiple: pixels that the short side is rounded up to a multiple of; None: a window. EVE takes the teacher's
            patches, 14 of 336 pixels: 28 of 672, as a window is, and 56 of 1344.

    Raises:
        ValueError: the width does not divide by `heads`, the size by `multiple`, or that by the windows.
    """

    def __init__(
        self,
        *,
        patch: PositiveInt = 14,
        width: PositiveInt = 1024,
        size: PositiveInt = 672,
        window: PositiveInt = 2,
        heads: PositiveInt = 8,
        multiple: PositiveInt | None = None,
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = (0.48145466, 0.4578275, 0.40821073),
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.26862954, 0.26130258, 0.27577711),
    ):
        super().__init__()
        for _, fault in self.knob_faults({"width": width, "heads": heads}):
            raise ValueError(fault)
        self.width, self.patch, self.window = width, patch, window
        multiple = patch * window if multiple is None else multiple
        if multiple < 1 or multiple % (patch * window) or size % multiple:
            raise ValueError(
                f"multiple ({multiple}) must be a multiple of a window ({patch * window}) that divides size ({size})"
            )
        self.image = ImageSpec((size, size), tuple(mean), tuple(std), "fit", multiple=multiple)
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.local = EVECrossAttention(width, heads)
        self.whole = EVECrossAttention(width, heads)
        self.cls = nn.Parameter(torch.randn(width))
        self.row_end = nn.Parameter(torch.randn(width))
        self.layout(size, size)

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        nn.init.normal_(self.cls)
        nn.init.normal_(self.row_end)

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of one image of that size in pixels.

        Raises:
            ValueError: the size is no multiple of the window.
        """
        cells = patch_grid(height, width, self.patch * self.window)
        return Layout(cells.rows, cells.cols, prefix=1, separators=1)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
        """Encode images.

        Raises:
            ValueError: their size is no multiple of the window.
        """
        layout = self.layout(*images.shape[-2:])
        windows = rearrange(
            self.proj(images),
            "m e (rows a) (cols b) -> (m rows cols) (a b) e",
            a=self.window,
            b=self.window,
        )
        mean = windows.mean(1, keepdim=True)
        cells = (mean + self.local(mean, windows)).view(len(images), -1, self.width)
        cls = self.cls.expand(len(images), 1, -1)
        cls = cls + self.whole(cls, cells)
        rows = cells.unflatten(1, (layout.rows, layout.cols))
        ends = self.row_end.expand(len(images), layout.rows, 1, -1)
        return torch.cat([cls, torch.cat([rows, ends], dim=2).flatten(1, 2)], dim=1)
