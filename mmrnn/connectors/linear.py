"""One projection, and the identity."""

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import require_same_width
from mmrnn.types import Connector, Layout


class Linear(nn.Module, Connector):
    """Projection of each token (LLaVA arXiv 2304.08485; without bias: VisualRWKV arXiv 2406.13362)."""

    def __init__(self, in_dim: int, out_dim: int | None = None, *, bias: bool = True):
        super().__init__()
        self.width = out_dim or in_dim
        self.proj = nn.Linear(in_dim, self.width, bias=bias)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Project each token."""
        return self.proj(tokens)


class Identity(nn.Module, Connector):
    """Tokens unchanged, for encoders of the backbone's width.

    Raises:
        ValueError: another width is asked for.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None):
        super().__init__()
        self.width = require_same_width("Identity", in_dim, out_dim)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Return the tokens."""
        return tokens
