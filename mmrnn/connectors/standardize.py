"""Channels of one scale, for encoders whose channels differ."""

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import require_same_width
from mmrnn.types import Connector, Layout


class Standardize(nn.Module, Connector):
    """Every channel with mean 0 and deviation 1 over tokens and images, as measured while training (batch norm).

    The channels of a convolutional map differ by orders of magnitude, which a norm over the channels of a token keeps.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None):
        super().__init__()
        self.width = require_same_width("Standardize", in_dim, out_dim)
        self.norm = nn.BatchNorm1d(in_dim)

    def layout(self, layout: Layout) -> Layout:
        return layout

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        return self.norm(tokens.flatten(0, 1)).view_as(tokens)
