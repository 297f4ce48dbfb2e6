"""ChatGLM-6B, the language model of VisualGLM (GLM: arXiv 2103.10360, 2210.02414)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.attention_mask import attention_mask, refuse_scan
from mmrnn.layers.recompute import run_block
from mmrnn.layers.rotary import rotary_angles, rotate
from mmrnn.types import (
    Backbone,
    BlockHooks,
    ChecksKnobs,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Scan,
    Sequence,
    State,
    StateOrigin,
    reset_layers,
)


class GLMAttention(nn.Module):
    """Self-attention with 2-D rotary positions: one position rotates each half of a head."""

    def __init__(self, width: int, heads: int, rope_theta: float):
        super().__init__()
        self.heads, self.rope_theta = heads, rope_theta
        for name in ("query", "key", "value", "output"):
            setattr(self, name, nn.Linear(width, width))

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        cache: dict[str, Tensor],
        positions: Int[Tensor, "b t 2"],
        mask: Bool[Tensor, "b 1 t s"] | None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Return the output and the cache with the keys and values of `x` appended."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        angles = [rotary_angles(positions[..., axis], q.shape[-1] // 2, self.rope_theta) for axis in range(2)]
        q, k = (torch.cat([*map(rotate, y.chunk(2, dim=-1), angles)], dim=-1) for y in (q, k))
        k = torch.cat([cache["key"].to(k.dtype), k], dim=2)
        v = torch.cat([cache["value"].to(v.dtype), v], dim=2)
        masked = {"is_causal": True} if mask is None and x.shape[1] > 1 else {"attn_mask": mask}
        out = F.scaled_dot_product_attention(q, k, v, **masked)
        return self.output(out.transpose(1, 2).flatten(2)), {"key": k, "value": v}


class GLMBlock(nn.Module):
    """DeepNorm block: y = norm(x), x = y * scale + attention(y), and the same with the MLP."""

    def __init__(self, width: int, heads: int, ffn: int, rope_theta: float, eps: float, scale: float):
        super().__init__()
        self.scale = scale
        self.norm_attention = nn.LayerNorm(width, eps)
        self.attention = GLMAttention(width, heads, rope_theta)
        self.norm_mlp = nn.LayerNorm(width, eps)
        self.mlp = nn.ModuleDict({"up": nn.Linear(width, ffn), "down": nn.Linear(ffn, width)})

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        cache: dict[str, Tensor],
        positions: Int[Tensor, "b t 2"],
        mask: Bool[Tensor, "b 1 t s"] | None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Return the output and the cache with the keys and values of `x` appended."""
        y = self.norm_attention(x)
        mixed, cache = self.attention(y, cache, positions, mask)
        y = self.norm_mlp(y * self.scale + mixed)
        return y * self.scale + self.mlp["down"](F.gelu(self.mlp["up"](y), approximate="tanh")), cache


class GLM(nn.Module, Backbone, ChecksKnobs):
    """ChatGLM language model (arXiv 2103.10360).

    The two position ids per token and the mask come from the groups `position=glm_2d` and `mask=glm`.

    Args:
        vocab: rows of the embedding and of the head.
        width: model dimension `d`.
        depth: number of blocks.
        ffn: hidden width of the MLP.
        rope_theta: base of the rotary frequencies.
        eps: of the norms.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.

    Raises:
        ValueError: `width` is no multiple of 4 x `heads`.
    """

    recurrent = False
    hooks = ("layer",)
    axes = 2

    def __init__(
        self,
        *,
        vocab: PositiveInt = 130528,
        width: PositiveInt = 4096,
        depth: PositiveInt = 28,
        heads: PositiveInt = 32,
        ffn: PositiveInt = 16384,
        rope_theta: PositiveFloat = 10000.0,
        eps: PositiveFloat = 1e-5,
        grad_checkpointing: NonNegativeInt = 0,
    ):
        super().__init__()
        for _, fault in self.knob_faults({"width": width, "heads": heads}):
            raise ValueError(fault)
        self.vocab, self.width, self.depth, self.heads = vocab, width, depth, heads
        self.grad_checkpointing = grad_checkpointing
        self.state_origin = StateOrigin("glm", {"depth": depth, "width": width, "heads": heads})
        self.embedding = nn.Embedding(vocab, width)
        scale = (2 * depth) ** 0.5
        self.blocks = nn.ModuleList(GLMBlock(width, heads, ffn, rope_theta, eps, scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps)
        self.output = nn.Linear(width, vocab, bias=False)
        self.reset_parameters()

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield sizes that do not divide. See `ChecksKnobs`."""
        width, heads = knobs["width"], knobs["heads"]
        if width % (4 * heads):
            yield "width", f"width ({width}) must be a multiple of 4 x heads ({heads}): half a head is rotated"

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise matrices with a standard deviation of 0.02, biases with zero."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""
        return self.embedding(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Return the logits of hidden states."""
        return self.output(hidden)

    def state(self, batch: int) -> State:
        """Return empty KV caches `b h 0 k`; `shared` holds the two positions of the next token of each row."""
        empty = self.norm.weight.new_zeros(batch, self.heads, 0, self.width // self.heads)
        layers = tuple({"key": empty, "value": empty} for _ in self.blocks)
        position = torch.zeros(batch, 2, dtype=torch.long, device=empty.device)
        return State(layers, {"next_position": position}, self.state_origin)

    def forward(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the blocks over a sequence, continuing from `state`; without position ids, all of it is context.

        Returns:
            The hidden states after the last norm, and the state after the last position.

        Raises:
            ValueError: one position id per token instead of two, or a `scan` that reorders patches.
        """
        refuse_scan(sequence, scan, self.depth)
        hook = hook or BlockHooks()
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.resume(state, len(x))
        mask, shared, _ = attention_mask(sequence, state)
        positions = sequence.positions
        if positions is None:
            steps = torch.arange(x.shape[1], device=x.device)
            positions = state.shared["next_position"][:, None] + torch.stack([steps, torch.zeros_like(steps)], dim=-1)
        if positions.dim() != 3:
            raise ValueError("GLM needs two position ids per token, and got one; set position=glm_2d")
        layers = []
        for layer, (block, old) in enumerate(zip(self.blocks, state.layers, strict=True)):
            x, new = run_block(block, layer, self.grad_checkpointing, hook.before(layer, x), old, positions, mask)
            x = hook.after(layer, x)
            layers.append(new)
        last = positions[:, -1]
        # In a reply the second position advances, in the context the first.
        step = torch.stack([last[:, 1] == 0, last[:, 1] > 0], dim=-1).long()
        return self.norm(x), State(tuple(layers), {**shared, "next_position": last + step}, self.state_origin)
