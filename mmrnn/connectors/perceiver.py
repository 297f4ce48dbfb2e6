"""Perceiver Resampler (Flamingo, arXiv 2204.14198)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.layers.feed_forward import FeedForward
from mmrnn.layers.latent_attention import LatentAttention
from mmrnn.types import Connector, Layout, PositiveInt, reset_layers


class PerceiverAttention(LatentAttention):
    """Attention of latents to the image tokens and to themselves, with a norm on both."""

    def __init__(self, width: int, heads: int, head_size: int):
        super().__init__(width, width, heads, head_size)
        self.norm_source = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)

    def forward(self, source: Float[Tensor, "m n e"], latents: Float[Tensor, "m q e"]) -> Float[Tensor, "m q e"]:
        """Update the latents, without a residual."""
        latents = self.norm_latents(latents)
        return self.attend(latents, torch.cat([self.norm_source(source), latents], dim=1))


class Perceiver(nn.Module, Connector):
    """`depth` layers in which `latents` learned vectors attend to the image tokens and to themselves.

    Emits one token per latent, of the input width where `out_dim` is None, else projected to it.

    Args:
        latents: number of visual tokens.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        latents: PositiveInt = 64,
        depth: PositiveInt = 6,
        heads: PositiveInt = 8,
        head_size: PositiveInt = 64,
    ):
        super().__init__()
        self.width = out_dim or in_dim
        self.latents = nn.Parameter(torch.randn(latents, in_dim))
        self.attentions = nn.ModuleList(PerceiverAttention(in_dim, heads, head_size) for _ in range(depth))
        self.ffns = nn.ModuleList(FeedForward(in_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(in_dim)
        self.head = nn.Identity() if out_dim is None else nn.Linear(in_dim, out_dim)

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        nn.init.normal_(self.latents)
        reset_layers(self)

    def layout(self, layout: Layout) -> Layout:
        """One token per latent, without a grid."""
        return Layout(prefix=len(self.latents))

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m q d"]:
        """Resample the tokens to the latents."""
        latents = self.latents.expand(len(tokens), -1, -1)
        for attention, ffn in zip(self.attentions, self.ffns, strict=True):
            latents = latents + attention(tokens, latents)
            latents = latents + ffn(latents)
        return self.head(self.norm(latents))
