"""Projection followed by transformer blocks (compared with a linear one in VILA, arXiv 2312.07533, section 3.1)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.layers.latent_attention import multi_head_attention
from mmrnn.types import Connector, Layout, PositiveInt


class ProjectorBlock(nn.Module):
    """Pre-norm block without a mask: x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        width: of the tokens.
        heads: of the attention.
        ffn: width inside the MLP.
    """

    def __init__(self, width: int, heads: int, ffn: int):
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)

    def forward(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d"]:
        """Let the tokens of an image attend to each other, and apply the MLP to each."""
        y = self.norm_attention(x)
        x = x + self.output(multi_head_attention(self.query(y), self.key(y), self.value(y), self.heads))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class TransformerProjector(nn.Module, Connector):
    """Linear projection, then `depth` transformer blocks in which the tokens of an image see each other, then a norm.

    Args:
        depth: number of blocks.
        heads: of the attention, which divide the output width.
        ffn: width inside the MLPs; None: four times the output width.

    Raises:
        ValueError: the output width is no multiple of `heads`.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        depth: PositiveInt = 1,
        heads: PositiveInt = 16,
        ffn: PositiveInt | None = None,
    ):
        super().__init__()
        self.width = out_dim or in_dim
        if self.width % heads:
            raise ValueError(f"heads ({heads}) must divide the width of the tokens ({self.width})")
        self.proj = nn.Linear(in_dim, self.width)
        self.blocks = nn.ModuleList(ProjectorBlock(self.width, heads, ffn or 4 * self.width) for _ in range(depth))
        self.norm = nn.LayerNorm(self.width)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Project the tokens, and mix those of each image."""
        x = self.proj(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
