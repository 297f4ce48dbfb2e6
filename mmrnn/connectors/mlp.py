"""Multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Connector, Layout, PositiveInt

ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class MLP(nn.Module, Connector):
    """`depth` projections with activations between them, applied to each token.

    Depth 2 is LLaVA-1.5 (`mlp2x_gelu`, arXiv 2310.03744), with `norm` VILA-1.5 (arXiv 2312.07533), with ReLU and
    without bias VisualRWKV-UHD (arXiv 2410.11665). Depth 3, first to four times the width, is Prismatic with two towers
    (arXiv 2402.07865).

    Args:
        hidden: width of all hidden layers, or one width for each; None: the output width.
        norm: LayerNorm before the first projection.

    Raises:
        ValueError: `depth`, `act` or the number of hidden widths is out of range.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        depth: PositiveInt = 2,
        hidden: PositiveInt | Sequence[PositiveInt | None] | None = None,
        act: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu",
        bias: bool = True,
        norm: bool = False,
    ):
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth ({depth}) must be at least 1")
        if act not in ACTIVATIONS:
            raise ValueError(f"act ({act!r}) must be one of {', '.join(ACTIVATIONS)}")
        self.width = out_dim or in_dim
        inner = hidden if isinstance(hidden, Sequence) else [hidden] * (depth - 1)
        if len(inner) != depth - 1:
            raise ValueError(f"hidden ({list(inner)}) must name {depth - 1} widths, one less than depth ({depth})")
        sizes = [in_dim, *(size or self.width for size in inner), self.width]
        # Published checkpoints number projections and activations together, as nn.Sequential does.
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1], bias=bias)]
        for pair in pairwise(sizes[1:]):
            layers += [ACTIVATIONS[act](), nn.Linear(*pair, bias=bias)]
        self.norm = nn.LayerNorm(in_dim) if norm else nn.Identity()
        self.layers = nn.Sequential(*layers)

    def layout(self, layout: Layout) -> Layout:
        """Layout of the visual tokens: that of the encoder tokens."""
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m n d"]:
        """Apply the MLP to each token."""
        return self.layers(self.norm(tokens))
