"""Projection followed by a gated MLP (the adapter of CogVLM, arXiv 2311.03079)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.types import Connector, Layout, PositiveInt


class GLU(nn.Module, Connector):
    """Projection, LayerNorm, GELU, then `down(silu(gate(x)) * up(x))`; linear layers without biases.

    Args:
        hidden: width inside the gated MLP; in CogVLM that of the MLPs of the language model.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None, *, hidden: PositiveInt = 11008):
        super().__init__()
        self.width = out_dim or in_dim
        self.proj = nn.Linear(in_dim, self.width, bias=False)
        self.norm = nn.LayerNorm(self.width)
        self.gate = nn.Linear(self.width, hidden, bias=False)
        self.up = nn.Linear(self.width, hidden, bias=False)
        self.down = nn.Linear(hidden, self.width, bias=False)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Apply the adapter to each token."""
        x = F.gelu(self.norm(self.proj(tokens)))
        return self.down(F.silu(self.gate(x)) * self.up(x))
