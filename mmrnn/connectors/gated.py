"""Projections with context gating: each token gates its own channels."""

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Connector, Layout


class GatedMLP(nn.Module, Connector):
    """`o(sigmoid(g(p(x))) * p(x))`: project, gate the projection, mix (VisualRWKV-HD)."""

    def __init__(self, in_dim: int, out_dim: int | None = None):
        super().__init__()
        self.width = out_dim or in_dim
        self.proj = nn.Linear(in_dim, self.width, bias=False)
        self.gate = nn.Linear(self.width, self.width, bias=False)
        self.output = nn.Linear(self.width, self.width, bias=False)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Project, then gate each token."""
        tokens = self.proj(tokens)
        return self.output(self.gate(tokens).sigmoid() * tokens)


class GatedLinear(nn.Module, Connector):
    """`norm(o(sigmoid(g(x)) * x))`: gate the encoder's own channels, project, normalise (VisualRWKV-7)."""

    def __init__(self, in_dim: int, out_dim: int | None = None):
        super().__init__()
        self.width = out_dim or in_dim
        self.gate = nn.Linear(in_dim, in_dim, bias=False)
        self.output = nn.Linear(in_dim, self.width, bias=False)
        self.norm = nn.LayerNorm(self.width)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Gate each token, then project and normalise."""
        return self.norm(self.output(self.gate(tokens).sigmoid() * tokens))
