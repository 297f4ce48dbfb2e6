"""A connector made of connectors."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.types import Connector, Layout


class Sequential(nn.Module, Connector):
    """Connectors one after the other, each with the width and the layout that the one before it emits.

    `Sequential(1024, 4096, parts=[partial(Pool, grid=8), Linear])` is a pooled projection. A frozen part
    followed by a trained one is a chain as well (MiniGPT-4, arXiv 2304.10592).

    Args:
        parts: called with (in_dim, out_dim); only the last one is told the out_dim, the others get None.

    Raises:
        ValueError: there are no parts.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        parts: Sequence[Callable[[int, int | None], nn.Module]],
    ):
        super().__init__()
        if not parts:
            raise ValueError("parts () must name at least one connector; Identity is the one that does nothing")
        built: list[nn.Module] = []
        self.width = in_dim
        for index, part in enumerate(parts):
            built.append(part(self.width, out_dim if index == len(parts) - 1 else None))
            self.width = built[-1].width
        self.parts = nn.ModuleList(built)

    def weight_root(self) -> str:
        """The part that alone has tensors: a pooled projection is published as a projection."""
        found = [f"parts.{index}" for index, part in enumerate(self.parts) if part.state_dict()]
        return found[0] if len(found) == 1 else ""

    def layout(self, layout: Layout) -> Layout:
        for part in self.parts:
            layout = part.layout(layout)
        return layout

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m v d"]:
        for part in self.parts:
            tokens = part(tokens, layout)
            layout = None if layout is None else part.layout(layout)
        return tokens
