"""Multi-head attention, and cross-attention as in Perceiver (arXiv 2103.03206) and Flamingo (arXiv 2204.14198)."""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.types import ChecksKnobs


class WholeHeads(ChecksKnobs):
    """Part whose knob `width` must be a multiple of its knob `heads`."""

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield sizes that do not divide. See `ChecksKnobs`."""
        width, heads = knobs["width"], knobs["heads"]
        if width % heads:
            yield "width", f"width ({width}) must be a multiple of heads ({heads})"


def multi_head_attention(
    query: Float[Tensor, "b q w"],
    key: Float[Tensor, "b s w"],
    value: Float[Tensor, "b s w"],
    heads: int,
    *,
    mask: Bool[Tensor, "#b #h q s"] | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b q w"]:
    """Compute scaled dot-product attention, `heads` heads side by side in the channels.

    Args:
        mask: True where a query attends to a key; None: everywhere.
        scale: of the scores; None: one over the square root of the head size.
        dropout: on the attention weights.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))  # b h q k
    out = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
    return out.transpose(1, 2).flatten(2)


class LatentAttention(nn.Module):
    """Cross-attention with one projection for keys and values.

    Subclasses add norms and residuals around `attend`.

    Args:
        width: of the queries and of the output.
        source_width: of the tokens that the queries attend to.
        bias: of the output projection; the others have none.
    """

    def __init__(self, width: int, source_width: int, heads: int, head_size: int, *, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * head_size, bias=False)
        self.kv = nn.Linear(source_width, 2 * heads * head_size, bias=False)  # keys, then values
        self.output = nn.Linear(heads * head_size, width, bias=bias)

    def attend(
        self,
        x: Float[Tensor, "b q d"],
        source: Float[Tensor, "b s e"],
        mask: Bool[Tensor, "#b #h q s"] | None = None,
        scale: float | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Attend from `x` to `source`; `mask` and `scale` as in `multi_head_attention`."""
        key, value = self.kv(source).chunk(2, dim=-1)
        return self.output(multi_head_attention(self.query(x), key, value, self.heads, mask=mask, scale=scale))
