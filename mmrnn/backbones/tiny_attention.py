"""One attention layer inside an RNN (VisualRWKV-5.2, the hybrid of arXiv 2406.13362)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.attention_mask import extend_segments
from mmrnn.backbones.hook import HookModule
from mmrnn.types import Backbone, BlockHooks, PositiveInt, Sequence, State


class TinyAttentionHooks(BlockHooks):
    """Attention over one sequence and the cache of its state."""

    def __init__(self, hook: "TinyAttention", sequence: Sequence, state: State | None):
        self.hook, self.sequence = hook, sequence
        shared = {} if state is None else state.shared
        self.past = {name: shared[f"tiny_{name}"] for name in ("key", "value", "segments") if f"tiny_{name}" in shared}
        self.cache: dict[str, Tensor] = {}

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Add the attention after its block."""
        if layer != self.hook.layer:
            return x
        mixed, self.cache = self.hook.attend(x, self.past, self.sequence.segments)
        return x + mixed

    @property
    def state(self) -> dict[str, Tensor]:
        """KV cache, and the segments of its keys where rows have segments."""
        return {f"tiny_{name}": value for name, value in self.cache.items()}


class TinyAttention(HookModule):
    """VisualRWKV-5.2's attention layer: x + attention(norm(x)) after one block, causal, without positions.

    Args:
        layer: block that it follows, counted from 0; negative: from the last.
        width: of queries, keys and values; None: that of the backbone.

    Raises:
        ValueError: there is no such block, or `width` is no multiple of `heads`.
    """

    def __init__(
        self,
        backbone: Backbone,
        media_width: int | None = None,
        *,
        layer: int = -1,
        width: PositiveInt | None = None,
        heads: PositiveInt = 8,
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
        """Take the KV cache of `state`."""
        return TinyAttentionHooks(self, sequence, state)

    def attend(
        self, x: Float[Tensor, "b t d"], past: dict[str, Tensor], segments: Tensor | None
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Return the output and the cache with the keys and values of `x` appended."""
        b, t, _ = x.shape
        y = self.norm(x)
        q, k, v = (
            z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in (self.query(y), self.key(y), self.value(y))
        )
        cache = {"key": k, "value": v}
        if past:
            cache = {name: torch.cat([past[name].to(new.dtype), new], dim=2) for name, new in cache.items()}
        total = cache["key"].shape[2]
        steps = torch.arange(total, device=x.device)
        mask = (steps <= steps[total - t :, None]).expand(b, t, total)
        cached = past.get("segments")
        if segments is not None or cached is not None:
            cache["segments"] = of_keys = extend_segments(cached, segments, total - t, t)
            mask = mask & (of_keys[:, total - t :, None] == of_keys[:, None])
        out = F.scaled_dot_product_attention(q, cache["key"], cache["value"], attn_mask=mask[:, None])
        return self.output(out.transpose(1, 2).flatten(2)), cache
