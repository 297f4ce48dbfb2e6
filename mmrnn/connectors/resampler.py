"""Resampler with one layer of cross-attention (Qwen-VL, arXiv 2308.12966)."""

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.connectors.grid import require_grid, split_prefix_grid_suffix
from mmrnn.layers.latent_attention import multi_head_attention
from mmrnn.layers.sincos import geometric_frequencies, sincos_2d
from mmrnn.types import Connector, Layout, PositiveInt, reset_layers

EPS = 1e-6
"""Of every LayerNorm."""


class Resampler(nn.Module, Connector):
    """Cross-attention of learned queries to the patches, a norm, and a square matrix; no residual, no feed-forward.

    The queries are the cells of a square grid. Its 2-D position table is added to them and, resampled to the grid of
    the image, to the keys, but not to the values.

    Args:
        queries: number of visual tokens, a square number.

    Raises:
        ValueError: `queries` is no square number, or the width does not divide.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, queries: PositiveInt = 256, heads: PositiveInt = 32):
        super().__init__()
        width = out_dim or in_dim
        if isqrt(queries) ** 2 != queries:
            raise ValueError(f"queries ({queries}) must be a square number: they are the cells of a grid")
        if width % heads or width % 4:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads}) and of 4")
        self.width, self.heads = width, heads
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.in_proj = nn.Linear(in_dim, width, bias=False)
        self.norm_query = nn.LayerNorm(width, EPS)
        self.norm_key = nn.LayerNorm(width, EPS)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, EPS)
        self.output = nn.Linear(width, width, bias=False)
        self.reset_parameters()

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as the released code does."""
        nn.init.trunc_normal_(self.queries, std=0.02)
        nn.init.normal_(self.output.weight, std=self.width**-0.5)
        for name in ("in_proj", "query", "key", "value", "out_proj"):
            nn.init.trunc_normal_(getattr(self, name).weight, std=0.02)

    def layout(self, layout: Layout) -> Layout:
        """One token per query, without a grid.

        Raises:
            ValueError: the encoder tokens have no patches, or row separators.
        """
        require_grid(layout, "Resampler")
        return Layout(prefix=len(self.queries))

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m q d"]:
        """Resample the patches to the queries."""
        return self.output(self.norm(self.cross_attend(tokens, layout)))

    def cross_attend(self, tokens: Float[Tensor, "m n e"], layout: Layout | None) -> Float[Tensor, "m q d"]:
        """Attend from the queries to the patches."""
        _, patches, _ = split_prefix_grid_suffix(tokens, layout, "Resampler")
        table = position_table(isqrt(len(self.queries)), self.width).to(tokens)
        positions = resample_table(table, layout.rows, layout.cols).flatten(0, 1)
        source = self.norm_key(self.in_proj(patches.flatten(1, 2)))
        query = self.query(self.norm_query(self.queries) + table.flatten(0, 1)).expand(len(tokens), -1, -1)
        key, value = self.key(source + positions), self.value(source)
        return self.out_proj(multi_head_attention(query, key, value, self.heads))


def position_table(side: int, width: int) -> Float[Tensor, "side side width"]:
    """Compute the position table of a square grid; as in MAE, the column comes before the row in the channels."""
    coordinates = torch.arange(side)
    table = sincos_2d(coordinates, coordinates, geometric_frequencies(width // 4))
    return table.transpose(0, 1).contiguous()


def resample_table(table: Float[Tensor, "side side width"], rows: int, cols: int) -> Float[Tensor, "rows cols width"]:
    """Resample a position table to another grid (bicubic, as in the released code)."""
    if table.shape[:2] == (rows, cols):
        return table
    image = table.float().movedim(-1, 0)[None]
    return F.interpolate(image, (rows, cols), mode="bicubic", align_corners=False)[0].movedim(0, -1).to(table)
