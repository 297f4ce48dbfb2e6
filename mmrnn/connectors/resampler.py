"""A fixed number of tokens by one layer of cross-attention (Qwen-VL, arXiv 2308.12966)."""

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.connectors.grid import check_rows, split_prefix_grid_suffix
from mmrnn.types import Connector, Layout

EPS = 1e-6
"""Of every LayerNorm."""


class Resampler(nn.Module, Connector):
    """Learned queries look at the patches once; a norm and a square matrix follow. No residual, no feed-forward.

    The queries are cells of a square grid. Its 2-D sine and cosine table is added to them and, resampled to the grid
    of the image, to the keys, not to the values.

    Args:
        queries: visual tokens that come out, a square number.

    Raises:
        ValueError: the sizes do not divide.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, queries: int = 256, heads: int = 32):
        super().__init__()
        width = out_dim or in_dim
        if isqrt(queries) ** 2 != queries:
            raise ValueError(f"queries ({queries}) must be a square number: they are the cells of a grid")
        if width % heads or width % 4:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads}) and of 4")
        self.width, self.heads = width, heads
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.enter = nn.Linear(in_dim, width, bias=False)
        self.norm_query = nn.LayerNorm(width, EPS)
        self.norm_key = nn.LayerNorm(width, EPS)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, EPS)
        self.output = nn.Linear(width, width, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.queries, std=0.02)
        nn.init.normal_(self.output.weight, std=self.width**-0.5)
        for name in ("enter", "query", "key", "value", "mix"):
            nn.init.trunc_normal_(getattr(self, name).weight, std=0.02)

    def layout(self, layout: Layout) -> Layout:
        check_rows(layout, "Resampler")
        return Layout(prefix=len(self.queries))

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m q d"]:
        return self.output(self.norm(self.look(tokens, layout)))

    def look(self, tokens: Float[Tensor, "m n e"], layout: Layout | None) -> Float[Tensor, "m q d"]:
        """What the queries see, before the norm."""
        _, patches, _ = split_prefix_grid_suffix(tokens, layout, "Resampler")
        side = isqrt(len(self.queries))
        table = sincos(side, self.width).to(tokens)
        places = resample(table, layout.rows, layout.cols)
        source = self.norm_key(self.enter(patches.flatten(1, 2)))
        query = self.query(self.norm_query(self.queries) + table.flatten(0, 1)).expand(len(tokens), -1, -1)
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # m h q k
            for x in (query, self.key(source + places.flatten(0, 1)), self.value(source))
        )
        return self.mix(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def sincos(side: int, width: int) -> Float[Tensor, "side side width"]:
    """Half of the channels tell the column, half the row; each half is sines, then cosines."""
    rates = 10000 ** -(torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * rates
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    return torch.cat([line[None].expand(side, side, -1), line[:, None].expand(side, side, -1)], dim=2)


def resample(table: Float[Tensor, "side side width"], rows: int, cols: int) -> Float[Tensor, "rows cols width"]:
    """The table for another grid (bicubic, as the released code does it)."""
    if table.shape[:2] == (rows, cols):
        return table
    image = table.float().movedim(-1, 0)[None]
    return F.interpolate(image, (rows, cols), mode="bicubic", align_corners=False)[0].movedim(0, -1).to(table)
