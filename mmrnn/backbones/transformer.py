"""Transformer of the Llama family: the baseline of the linear RNNs."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.attention_mask import positions_and_mask, refuse_scan
from mmrnn.backbones.rope_scaling import LongContextScaling, long_context_scaling
from mmrnn.backbones.route import route
from mmrnn.layers.recompute import run_block
from mmrnn.layers.rotary import rotary_angles, rotate
from mmrnn.types import (
    Backbone,
    BlockHooks,
    ChecksKnobs,
    Expert,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Scan,
    Sequence,
    State,
    StateOrigin,
    reset_layers,
)


class Attention(nn.Module):
    """Causal self-attention with rotary positions, grouped-query heads and a KV cache."""

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_size: int,
        rope_theta: float,
        bias: bool,
        qk_norm: bool,
        eps: float,
    ):
        super().__init__()
        self.heads, self.kv_heads, self.head_size, self.rope_theta = heads, kv_heads, head_size, rope_theta
        self.query = nn.Linear(width, heads * head_size, bias=bias)
        self.key = nn.Linear(width, kv_heads * head_size, bias=bias)
        self.value = nn.Linear(width, kv_heads * head_size, bias=bias)
        self.output = nn.Linear(heads * head_size, width, bias=False)
        self.query_norm = nn.RMSNorm(head_size, eps=eps) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_size, eps=eps) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        cache: dict[str, Tensor],
        positions: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b 1 t s"] | None,
        expert: Expert | None = None,
        scaling: LongContextScaling | None = None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Return the output and the cache with the keys and values of `x` appended."""
        b, t, _ = x.shape
        theta = self.rope_theta if scaling is None else scaling.rope_theta
        expert_part = None if expert is None else expert.attention

        def project(name: str, y: Tensor) -> Tensor:
            part = self.get_submodule(name)
            if expert_part is None:
                return part(y)
            return route(expert.routing, part, expert_part.get_submodule(name), y)

        query = self.query_norm(project("query", x).view(b, t, self.heads, -1)).transpose(1, 2)
        key = self.key_norm(project("key", x).view(b, t, self.kv_heads, -1)).transpose(1, 2)
        value = project("value", x).view(b, t, self.kv_heads, -1).transpose(1, 2)
        angle = rotary_angles(positions, self.head_size, theta)
        query, key = rotate(query, angle), rotate(key, angle)
        if scaling is not None:
            query = query * scaling.log_n[:, None, :, None].to(query.dtype)
        key = torch.cat([cache["key"].to(key.dtype), key], dim=2)
        value = torch.cat([cache["value"].to(value.dtype), value], dim=2)
        masked = {"is_causal": True} if mask is None and t > 1 else {"attn_mask": mask}
        out = F.scaled_dot_product_attention(query, key, value, enable_gqa=self.heads != self.kv_heads, **masked)
        return project("output", out.transpose(1, 2).reshape(b, t, -1)), {"key": key, "value": value}


class SwiGLU(nn.Module):
    """SwiGLU MLP: down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, width: int, ffn: int):
        super().__init__()
        self.gate = nn.Linear(width, ffn, bias=False)
        self.up = nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Apply the MLP."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, attention: Attention, mlp: SwiGLU, eps: float, dropout: float):
        super().__init__()
        self.norm_attention = nn.RMSNorm(width, eps=eps)
        self.attention = attention
        self.norm_mlp = nn.RMSNorm(width, eps=eps)
        self.mlp = mlp
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        cache: dict[str, Tensor],
        positions: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b 1 t s"] | None,
        expert: Expert | None = None,
        scaling: LongContextScaling | None = None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Return the output and the cache with the keys and values of `x` appended."""
        mixed, cache = self.attention(self.norm_attention(x), cache, positions, mask, expert, scaling)
        x = x + self.dropout(mixed)
        y = self.norm_mlp(x)
        expert_mlp = None if expert is None else expert.mlp
        y = self.mlp(y) if expert_mlp is None else route(expert.routing, self.mlp, expert_mlp, y)
        return x + self.dropout(y), cache


class Transformer(nn.Module, Backbone, ChecksKnobs):
    """Decoder-only transformer of the Llama architecture (arXiv 2302.13971).

    Args:
        vocab: rows of the embedding and of the head.
        width: model dimension `d`.
        depth: number of blocks.
        heads: query heads.
        kv_heads: key and value heads (grouped-query attention); None: `heads`.
        head_size: None: width / heads.
        ffn: hidden width of the SwiGLU.
        rope_theta: base of the rotary frequencies.
        train_length: context length that the weights were trained with. In evaluation mode, longer texts get dynamic
            NTK RoPE and log-n attention (Qwen-7B). None: no scaling.
        eps: of the RMS norms.
        bias: biases of query, key and value (Qwen2).
        qk_norm: RMS norm of the queries and keys of each head (Qwen3).
        tie_embeddings: the head shares the weights of the embedding.
        dropout: of both branches of each block.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.
        pretrained: weights that `mmrnn.build` loads: a file, a folder, `owner/name` on the Hugging Face hub or
            `package:name/file`. The constructor loads nothing.

    Raises:
        ValueError: `heads` is no multiple of `kv_heads`, `width` none of `heads` and `head_size` is None, or the size
            of a head is odd.
    """

    recurrent = False
    hooks = ("layer", "attention", "mlp")

    def __init__(
        self,
        *,
        vocab: PositiveInt = 32000,
        width: PositiveInt = 4096,
        depth: PositiveInt = 32,
        heads: PositiveInt = 32,
        kv_heads: PositiveInt | None = None,
        head_size: PositiveInt | None = None,
        ffn: PositiveInt = 11008,
        rope_theta: PositiveFloat = 10000.0,
        train_length: PositiveInt | None = None,
        eps: PositiveFloat = 1e-5,
        bias: bool = False,
        qk_norm: bool = False,
        tie_embeddings: bool = False,
        dropout: Fraction = 0.0,
        grad_checkpointing: NonNegativeInt = 0,
        pretrained: str | None = None,
    ):
        super().__init__()
        kv_heads = kv_heads or heads
        sizes = {"width": width, "heads": heads, "kv_heads": kv_heads, "head_size": head_size}
        for _, fault in self.knob_faults(sizes):
            raise ValueError(fault)
        head_size = head_size or width // heads
        self.vocab, self.width, self.depth, self.grad_checkpointing = vocab, width, depth, grad_checkpointing
        self.pretrained, self.train_length = pretrained, train_length
        sizes = {"depth": depth, "width": width, "kv_heads": kv_heads, "head_size": head_size}
        self.state_origin = StateOrigin("transformer", sizes)
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                Attention(width, heads, kv_heads, head_size, rope_theta, bias, qk_norm, eps),
                SwiGLU(width, ffn),
                eps,
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=eps)
        self.output = None if tie_embeddings else nn.Linear(width, vocab, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise with a standard deviation of 0.02, divided by sqrt(2 depth) at the end of each branch (GPT-2)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith(("attention.output.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * self.depth) ** 0.5 if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield sizes that do not divide, by each other or by the pairs of rotary positions. See `ChecksKnobs`."""
        width, heads, kv_heads = knobs["width"], knobs["heads"], knobs["kv_heads"]
        if kv_heads is not None and heads % kv_heads:
            yield "heads", f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})"
        elif knobs["head_size"] is None and width % heads:
            yield "width", f"width ({width}) must be a multiple of heads ({heads}), or set head_size"
        elif (size := knobs["head_size"] or width // heads) % 2:
            name = "width" if knobs["head_size"] is None else "head_size"
            yield (
                name,
                f"{name} ({knobs[name]}) makes heads of {size} channels; rotation needs an even number",
            )

    def hook_target(self, layer: int, name: str) -> nn.Module:
        """Attention or MLP of block `layer`.

        Raises:
            ValueError: `name` is neither `attention` nor `mlp`.
        """
        if name not in ("attention", "mlp"):
            return super().hook_target(layer, name)
        return self.blocks[layer].get_submodule(name)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""
        return self.embedding(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Return the logits of hidden states."""
        return F.linear(hidden, self.embedding.weight) if self.output is None else self.output(hidden)

    def state(self, batch: int) -> State:
        """Empty KV caches `b h 0 k`.

        `shared` holds the next position of each row and, once rows have segments, the segments of all cached keys.
        """
        weight, attention = self.norm.weight, self.blocks[0].attention
        empty = weight.new_zeros(batch, attention.kv_heads, 0, attention.head_size)
        layers = tuple({"key": empty, "value": empty} for _ in self.blocks)
        position = torch.zeros(batch, dtype=torch.long, device=weight.device)
        return State(layers, {"next_position": position}, self.state_origin)

    def forward(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the blocks over a sequence, continuing from `state`.

        Returns:
            The hidden states after the last norm, and the state after the last position.

        Raises:
            ValueError: `scan` reorders patches, which has no meaning for attention.
        """
        refuse_scan(sequence, scan, self.depth)
        hook = hook or BlockHooks()
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.resume(state, len(x))
        positions, mask, shared = positions_and_mask(sequence, state)
        scaling = None
        if self.train_length is not None and not self.training:
            first = self.blocks[0].attention
            scaling, shared["ntk_alpha"] = long_context_scaling(
                positions,
                state.shared.get("ntk_alpha"),
                train_length=self.train_length,
                rope_theta=first.rope_theta,
                head_size=first.head_size,
            )
        layers = []
        for layer, (block, old) in enumerate(zip(self.blocks, state.layers, strict=True)):
            x = hook.before(layer, x)
            inputs = x, old, positions, mask, hook.expert(layer), scaling
            x, new = run_block(block, layer, self.grad_checkpointing, *inputs)
            x = hook.after(layer, x)
            layers.append(new)
        return self.norm(x), State(tuple(layers), shared, self.state_origin)
