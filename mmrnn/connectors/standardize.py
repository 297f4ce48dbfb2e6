"""Standardisation of channels."""

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.grid import require_same_width
from mmrnn.types import Connector, Layout


class Standardize(nn.Module, Connector):
    """Batch norm over tokens and images: each channel gets mean 0 and standard deviation 1.

    The channels of a convolutional feature map differ in scale by orders of magnitude; a LayerNorm over the channels of
    a token would keep these differences.

    Raises:
        ValueError: another width is asked for.
    """

    def __init__(self, in_dim: int, out_dim: int | None = None):
        super().__init__()
        self.width = require_same_width("Standardize", in_dim, out_dim)
        self.norm = nn.BatchNorm1d(in_dim)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n d"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Normalise each channel."""
        return self.norm(tokens.flatten(0, 1)).view_as(tokens)
