"""Encoder-free, with two small attentions: EVE's patch embedding layer (arXiv 2406.11832)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.encoders.patch import grid
from mmrnn.types import Encoder, ImageSpec, Layout


class Gather(nn.Module):
    """Cross-attention whose scores are scaled by the full width, as released."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_query = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.norm_source = nn.LayerNorm(width)
        self.pair = nn.Linear(width, 2 * width, bias=False)  # keys, then values
        self.output = nn.Linear(width, width)

    def forward(self, query: Float[Tensor, "m q e"], source: Float[Tensor, "m n e"]) -> Float[Tensor, "m q e"]:
        key, value = self.pair(self.norm_source(source)).chunk(2, dim=-1)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query(self.norm_query(query)), key, value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=query.shape[-1] ** -0.5)
        return self.output(mixed.transpose(1, 2).flatten(2))


class EVEPatchEmbed(nn.Module, Encoder):
    """A convolution, windows gathered into their mean, one class token, a vector that ends each row.

    Images keep their shape: the long side becomes `size`, the short side is rounded up to whole windows. Emitted
    are the class token and, row by row, the windows with the row end behind them.

    Args:
        window: patches a side that become one token.
    """

    def __init__(
        self,
        *,
        patch: int = 14,
        width: int = 1024,
        size: int = 672,
        window: int = 2,
        heads: int = 8,
        mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073),
        std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711),
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        self.width, self.patch, self.window = width, patch, window
        self.image = ImageSpec((size, size), tuple(mean), tuple(std), "fit", multiple=patch * window)
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.local = Gather(width, heads)
        self.whole = Gather(width, heads)
        self.cls = nn.Parameter(torch.randn(width))
        self.row_end = nn.Parameter(torch.randn(width))
        self.layout(size, size)

    def layout(self, height: int, width: int) -> Layout:
        """How the tokens of an image of so many pixels lie.

        Raises:
            ValueError: the size is no multiple of a window.
        """
        cells = grid(height, width, self.patch * self.window)
        return Layout(cells.rows, cells.cols, prefix=1, separators=1)

    def forward(self, images: Float[Tensor, "m c H W"]) -> Float[Tensor, "m n e"]:
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
