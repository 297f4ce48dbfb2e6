"""Chain of connectors."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Connector, Layout


class Sequential(nn.Module, Connector):
    """Connectors in a chain, each with the output width and layout of the one before.

    `Sequential(1024, 4096, parts=[partial(Pool, grid=8), Linear])` is a pooled projection. MiniGPT-4 (arXiv 2304.10592)
    is a frozen Q-Former followed by a trained projection.

    Args:
        parts: called with (in_dim, out_dim); `out_dim` is None for all but the last.

    Raises:
        ValueError: there are no parts.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        parts: Sequence[Callable[[int, int | None], Connector]],
    ):
        super().__init__()
        if not parts:
            raise ValueError("parts () must name at least one connector; Identity is one that changes nothing")
        built: list[nn.Module] = []
        self.width = in_dim
        for index, part in enumerate(parts):
            built.append(part(self.width, out_dim if index == len(parts) - 1 else None))
            self.width = built[-1].width
        self.parts = nn.ModuleList(built)

    def weight_root(self) -> str:
        """Path of the only part with tensors, if there is one: a pooled projection is published as a projection."""
        found = [f"parts.{index}" for index, part in enumerate(self.parts) if part.state_dict()]
        return found[0] if len(found) == 1 else ""

    def layout(self, layout: Layout) -> Layout:
        """Layout of the tokens of the last part."""
        for part in self.parts:
            layout = part.layout(layout)
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        """Apply all parts in order."""
        for part in self.parts:
            tokens = part(tokens, layout)
            layout = None if layout is None else part.layout(layout)
        return tokens
