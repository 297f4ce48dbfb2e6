"""A fixed number of tokens by latents that look again and again (Flamingo's Perceiver Resampler, arXiv 2204.14198)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.types import Connector, Layout


class PerceiverAttention(nn.Module):
    """Latents attend to the image and to themselves."""

    def __init__(self, width: int, heads: int, head_size: int):
        super().__init__()
        self.heads = heads
        self.norm_source = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * head_size, bias=False)
        self.pair = nn.Linear(width, 2 * heads * head_size, bias=False)  # keys, then values
        self.output = nn.Linear(heads * head_size, width, bias=False)

    def forward(self, source: Float[Tensor, "m n e"], latents: Float[Tensor, "m q e"]) -> Float[Tensor, "m q e"]:
        latents = self.norm_latents(latents)
        key, value = self.pair(torch.cat([self.norm_source(source), latents], dim=1)).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query(latents), key, value))
        return self.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Norm, four times the width, GELU, back; without biases."""

    def __init__(self, width: int):
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )


class Perceiver(nn.Module, Connector):
    """`latents` learned vectors that read the image in `depth` layers.

    Emits one token a latent: of the width that came in where no out_dim is asked for, else projected to it.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        latents: int = 64,
        depth: int = 6,
        heads: int = 8,
        head_size: int = 64,
    ):
        super().__init__()
        self.width = out_dim or in_dim
        self.latents = nn.Parameter(torch.randn(latents, in_dim))
        self.looks = nn.ModuleList(PerceiverAttention(in_dim, heads, head_size) for _ in range(depth))
        self.ffns = nn.ModuleList(FeedForward(in_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(in_dim)
        self.head = nn.Identity() if out_dim is None else nn.Linear(in_dim, out_dim)

    def layout(self, layout: Layout) -> Layout:
        return Layout(prefix=len(self.latents))

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m q d"]:
        latents = self.latents.expand(len(tokens), -1, -1)
        for look, ffn in zip(self.looks, self.ffns, strict=True):
            latents = latents + look(tokens, latents)
            latents = latents + ffn(latents)
        return self.head(self.norm(latents))
