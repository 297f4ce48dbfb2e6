"""Q-Former: learned queries with cross-attention to the image (BLIP-2, arXiv 2301.12597)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.layers.latent_attention import WholeHeads, multi_head_attention
from mmrnn.types import Connector, Fraction, Layout, PositiveInt, reset_layers

EPS = 1e-12
"""Of every LayerNorm, as in BERT."""


class PostNormAttention(nn.Module):
    """Multi-head attention with a residual and a norm behind it (post-LN), as in BERT.

    Args:
        source_width: of the tokens attended to; None: `width`.
    """

    def __init__(self, width: int, heads: int, dropout: float, source_width: int | None = None):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        source_width = width if source_width is None else source_width
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, EPS)

    def forward(
        self,
        x: Float[Tensor, "m q d"],
        source: Float[Tensor, "m n e"] | None = None,
        mask: Bool[Tensor, "m 1 q s"] | None = None,
    ) -> Float[Tensor, "m q d"]:
        """Attend from `x` to `source` (None: to `x`) where `mask` is True."""
        source = x if source is None else source
        dropout = self.dropout if self.training else 0.0
        query, key, value = self.query(x), self.key(source), self.value(source)
        out = multi_head_attention(query, key, value, self.heads, mask=mask, dropout=dropout)
        return self.norm(x + F.dropout(self.output(out), dropout))


class PostNormFeedForward(nn.Module):
    """Two projections with GELU between them, a residual and a norm behind it (post-LN)."""

    def __init__(self, width: int, ffn: int, dropout: float):
        super().__init__()
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)
        self.norm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "m q d"]) -> Float[Tensor, "m q d"]:
        """Apply the layer to each token."""
        return self.norm(x + self.dropout(self.down(F.gelu(self.up(x)))))


class QFormerLayer(nn.Module):
    """Self-attention, optional cross-attention to image tokens, feed-forward (post-LN).

    Args:
        source_width: of the image tokens; None: no cross-attention.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, source_width: int | None):
        super().__init__()
        self.attention = PostNormAttention(width, heads, dropout)
        self.cross = None if source_width is None else PostNormAttention(width, heads, dropout, source_width)
        self.ffn = PostNormFeedForward(width, ffn, dropout)

    def forward(self, queries: Float[Tensor, "m q d"], image: Float[Tensor, "m n e"]) -> Float[Tensor, "m q d"]:
        """Update the queries."""
        return self.update_queries(self.attention(queries), image)

    def update_queries(self, queries: Float[Tensor, "m q d"], image: Float[Tensor, "m n e"]) -> Float[Tensor, "m q d"]:
        """Apply what follows the self-attention: cross-attention and feed-forward."""
        if self.cross is not None:
            queries = self.cross(queries, image)
        return self.ffn(queries)


class QFormer(nn.Module, Connector, WholeHeads):
    """BERT on `queries` learned vectors, with cross-attention to the image tokens.

    Emits one token per query, of the inner `width` where `out_dim` is None, else projected to it. The image tokens may
    have any number and layout; BLIP-2 normalises them first (`ln_vision`).

    Args:
        queries: number of visual tokens.
        width: of the hidden states.
        cross_every: distance of the layers with cross-attention, of which the first layer is one.

    Raises:
        ValueError: the width does not divide by `heads`, or a number is below 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        queries: PositiveInt = 32,
        width: PositiveInt = 768,
        depth: PositiveInt = 12,
        heads: PositiveInt = 12,
        ffn: PositiveInt = 3072,
        cross_every: PositiveInt = 2,
        dropout: Fraction = 0.1,
    ):
        super().__init__()
        for _, fault in self.knob_faults({"width": width, "heads": heads}):
            raise ValueError(fault)
        for name, value in (("queries", queries), ("depth", depth), ("cross_every", cross_every)):
            if value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        self.width = out_dim or width
        self.queries = nn.Parameter(torch.zeros(queries, width))
        self.norm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(dropout)
        sources = [None if layer % cross_every else in_dim for layer in range(depth)]
        self.layers = nn.ModuleList(QFormerLayer(width, heads, ffn, dropout, source) for source in sources)
        self.reset_parameters()
        self.head = nn.Identity() if out_dim is None else nn.Linear(width, out_dim)

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        for module in (self.norm, self.layers):
            reset_layers(module)
        self.reset_parameters()
        reset_layers(self.head)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as BERT; the output projection keeps the initialisation of `nn.Linear`."""
        nn.init.normal_(self.queries, std=0.02)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def layout(self, layout: Layout) -> Layout:
        """One token per query, without a grid."""
        return Layout(prefix=len(self.queries))

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m q d"]:
        """Encode the image into one token per query."""
        return self.head(self.forward_image(tokens))

    def forward_image(self, tokens: Float[Tensor, "m n e"]) -> Float[Tensor, "m q w"]:
        """Compute the hidden states of the queries, before the output projection."""
        queries = self.embed_queries(len(tokens))
        for layer in self.layers:
            queries = layer(queries, tokens)
        return queries

    def embed_queries(self, batch: int) -> Float[Tensor, "m q w"]:
        """Normalise the learned queries and repeat them for `batch` images."""
        return self.dropout(self.norm(self.queries).expand(batch, -1, -1))
