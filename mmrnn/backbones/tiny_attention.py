"""One layer of attention in an RNN (VisualRWKV-5.2, the hybrid of arXiv 2406.13362)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.hook import HookModule
from mmrnn.types import Backbone, BlockHooks, Sequence, State


class TinyAttentionHooks(BlockHooks):
    """Attention over one sequence and over all that was read before it."""

    def __init__(self, hook: "TinyAttention", sequence: Sequence, state: State | None):
        self.hook, self.sequence = hook, sequence
        shared = {} if state is None else state.shared
        self.past = {name: shared[f"tiny_{name}"] for name in ("key", "value", "segments") if f"tiny_{name}" in shared}
        self.kept: dict[str, Tensor] = {}

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        if layer != self.hook.layer:
            return x
        mixed, self.kept = self.hook.attend(x, self.past, self.sequence.segments)
        return x + mixed

    @property
    def state(self) -> dict[str, Tensor]:
        return {f"tiny_{name}": value for name, value in self.kept.items()}


class TinyAttention(HookModule):
    """After block `layer`: x + attention(norm(x)), causal, without positions.

    Args:
        layer: counted from 0; negative ones from the last.
        width: of queries, keys and values; None takes that of the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        media: int | None = None,
        *,
        layer: int = -1,
        width: int | None = None,
        heads: int = 8,
    ):
        super().__init__(backbone)
        depth = backbone.depth
        if not -depth <= layer < depth:
            raise ValueError(f"layer ({layer}) must lie between {-depth} and {depth - 1}")
        inner = width or backbone.width
        if inner % heads:
            raise ValueError(f"width ({inner}) must be a multiple of heads ({heads})")
        self.layer, self.heads = layer % depth, heads
        self.norm = nn.LayerNorm(backbone.width)
        self.query = nn.Linear(backbone.width, inner, bias=False)
        self.key = nn.Linear(backbone.width, inner, bias=False)
        self.value = nn.Linear(backbone.width, inner, bias=False)
        self.output = nn.Linear(inner, backbone.width, bias=False)

    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        return TinyAttentionHooks(self, sequence, state)

    def attend(
        self, x: Float[Tensor, "b t d"], past: dict[str, Tensor], segments: Tensor | None
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """What is recalled, and the keys and values up to here."""
        b, t, _ = x.shape
        y = self.norm(x)
        q, k, v = (
            z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in (self.query(y), self.key(y), self.value(y))
        )
        kept = {"key": k, "value": v}
        if past:
            kept = {name: torch.cat([past[name].to(new.dtype), new], dim=2) for name, new in kept.items()}
        total = kept["key"].shape[2]
        steps = torch.arange(total, device=x.device)
        mask = (steps <= steps[total - t :, None]).expand(b, t, total)
        known = past.get("segments")
        if segments is not None or known is not None:
            new = known[:, -1:].expand(b, t) if segments is None else segments
            old = new[:, :1].expand(b, total - t) if known is None else known
            kept["segments"] = every = torch.cat([old, new], dim=1)
            mask = mask & (every[:, total - t :, None] == every[:, None])
        out = F.scaled_dot_product_attention(q, kept["key"], kept["value"], attn_mask=mask[:, None])
        return self.output(out.transpose(1, 2).flatten(2)), kept
