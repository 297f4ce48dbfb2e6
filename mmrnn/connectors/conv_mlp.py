"""Convolution over the sequence of tokens, then an MLP and a residual norm."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.mlp import ACTIVATIONS
from mmrnn.types import Connector, Layout, NonNegativeInt, PositiveInt


class ConvMLP(nn.Module, Connector):
    """Fewer tokens by a convolution over their sequence, then two projections, then `y + norm(y)`.

    The adapters of ModRWKV (arXiv 2505.14505): the defaults are that of its SigLIP2 tower; with `kernel=3, stride=2`
    287 of 576 tokens are left.

    Args:
        kernel: tokens that the convolution sums; None: there is none.
        stride: tokens between two of its outputs.
        padding: tokens of zero in front of the first one and behind the last one.
        channels: of the convolution, as a multiple of the output width; None: the input width, and no bias.
        expand: width between the projections, as a multiple of the output width.
        residual_norm: add the normalised output to the output.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        kernel: PositiveInt | None = None,
        stride: PositiveInt = 1,
        padding: NonNegativeInt = 0,
        channels: PositiveInt | None = None,
        expand: PositiveInt = 4,
        act: Literal["gelu", "gelu_tanh", "relu", "silu"] = "relu",
        residual_norm: bool = True,
    ):
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"act ({act!r}) must be one of {', '.join(ACTIVATIONS)}")
        self.width = out_dim or in_dim
        self.conv = None
        if kernel is not None:
            inner = channels * self.width if channels else in_dim
            self.conv = nn.Conv1d(in_dim, inner, kernel, stride, padding, bias=channels is not None)
            in_dim = inner
        hidden = expand * self.width
        self.layers = nn.Sequential(nn.Linear(in_dim, hidden), ACTIVATIONS[act](), nn.Linear(hidden, self.width))
        self.norm = nn.LayerNorm(self.width) if residual_norm else None

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens, or behind a convolution a sequence without a grid.

        Raises:
            ValueError: the convolution needs more tokens than there are.
        """
        if self.conv is None:
            return layout
        (kernel,), (stride,), (padding,) = self.conv.kernel_size, self.conv.stride, self.conv.padding
        if layout.tokens + 2 * padding < kernel:
            raise ValueError(f"kernel ({kernel}) must not exceed the {layout.tokens} tokens of the encoder")
        return Layout(prefix=(layout.tokens + 2 * padding - kernel) // stride + 1)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Convolve the sequence, then project each token."""
        if self.conv is not None:
            tokens = self.conv(tokens.mT).mT
        tokens = self.layers(tokens)
        return tokens if self.norm is None else tokens + self.norm(tokens)
