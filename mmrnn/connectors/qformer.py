"""Q-Former: learned queries that read the image (BLIP-2, arXiv 2301.12597)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.types import Connector, Layout

EPS = 1e-12
"""Of every LayerNorm, as in BERT."""


class Attention(nn.Module):
    """Multi-head attention of x to `source` (or to itself), added to x and normalised after (post-LN)."""

    def __init__(self, width: int, heads: int, dropout: float, source: int | None = None):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width if source is None else source, width)
        self.value = nn.Linear(width if source is None else source, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, EPS)

    def forward(
        self,
        x: Float[Tensor, "m q d"],
        source: Float[Tensor, "m n e"] | None = None,
        mask: Bool[Tensor, "m 1 q s"] | None = None,
    ) -> Float[Tensor, "m q d"]:
        source = x if source is None else source
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # m h q k
            for y in (self.query(x), self.key(source), self.value(source))
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2).flatten(2)
        return self.norm(x + F.dropout(self.output(mixed), dropout))


class FeedForward(nn.Module):
    """Two projections with GELU, added and normalised after."""

    def __init__(self, width: int, ffn: int, dropout: float):
        super().__init__()
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)
        self.norm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "m q d"]) -> Float[Tensor, "m q d"]:
        return self.norm(x + self.dropout(self.down(F.gelu(self.up(x)))))


class Layer(nn.Module):
    """The queries look at each other, at the image (where `source` is its width), and think it over."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, source: int | None):
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.cross = None if source is None else Attention(width, heads, dropout, source)
        self.ffn = FeedForward(width, ffn, dropout)

    def forward(self, queries: Float[Tensor, "m q d"], image: Float[Tensor, "m n e"]) -> Float[Tensor, "m q d"]:
        queries = self.attention(queries)
        if self.cross is not None:
            queries = self.cross(queries, image)
        return self.ffn(queries)


class QFormer(nn.Module, Connector):
    """A BERT whose input is `queries` learned vectors and which reads the image by cross-attention.

    Emits one token a query: of its own `width` where no out_dim is asked for, else projected to it. The
    tokens of the image may be any number and lie in any way; BLIP-2 norms them first (`ln_vision`).

    Args:
        queries: visual tokens that come out.
        cross_every: every so many layers read the image, beginning with the first.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        queries: int = 32,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        ffn: int = 3072,
        cross_every: int = 2,
        dropout: float = 0.1,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        for name, value in (("queries", queries), ("depth", depth), ("cross_every", cross_every)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.width = out_dim or width
        self.queries = nn.Parameter(torch.zeros(queries, width))
        self.norm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(dropout)
        sources = [None if layer % cross_every else in_dim for layer in range(depth)]
        self.layers = nn.ModuleList(Layer(width, heads, ffn, dropout, source) for source in sources)
        self.reset_parameters()
        self.head = nn.Identity() if out_dim is None else nn.Linear(width, out_dim)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """BERT's initialisation; the projection behind it keeps that of torch."""
        nn.init.normal_(self.queries, std=0.02)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def layout(self, layout: Layout) -> Layout:
        return Layout(prefix=len(self.queries))

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m q d"]:
        queries = self.dropout(self.norm(self.queries).expand(len(tokens), -1, -1))
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.head(queries)
