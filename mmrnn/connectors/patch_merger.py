"""Patch merger of Qwen2-VL and its successors (arXiv 2409.12191)."""

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.connectors.merge import Merge
from mmrnn.types import Connector, Layout, PositiveFloat, PositiveInt


class PatchMerger(nn.Module, Connector):
    """Norm of every patch, blocks of patches joined, and an MLP as wide as a block; zeros fill up the last blocks.

    Args:
        side: patches a side of a block.
        rms: RMS norm (Qwen2.5-VL) in place of LayerNorm.
        eps: of the norm.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        side: PositiveInt = 2,
        rms: bool = False,
        eps: PositiveFloat = 1e-6,
    ):
        super().__init__()
        inner = in_dim * side**2
        self.width = out_dim or in_dim
        self.norm = (nn.RMSNorm if rms else nn.LayerNorm)(in_dim, eps=eps)
        self.merge = Merge(in_dim, rows=side, cols=side)
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, self.width))

    def layout(self, layout: Layout) -> Layout:
        """Return the layout of the blocks.

        Raises:
            ValueError: there are tokens beside the patches.
        """
        return self.merge.layout(layout)

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Merge the patches of images that have one layout."""
        return self.mlp(self.merge(self.norm(tokens), layout))
