"""The transformer of Llama and its kin, the backbone that linear RNNs are compared with."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmrnn.backbones.rope_scaling import LongContextScaling, longer
from mmrnn.backbones.route import route
from mmrnn.types import Backbone, BlockHooks, Expert, Scan, Sequence, State


def rotate(
    x: Float[Tensor, "b h t k"], positions: Int[Tensor, "b t"], theta: float | Float[Tensor, " b"]
) -> Float[Tensor, "b h t k"]:
    """Rotary positions (RoFormer, arXiv 2104.09864) in Llama's layout: channel i is paired with channel i + k/2."""
    half = x.shape[-1] // 2
    theta = theta[:, None, None, None] if isinstance(theta, Tensor) else theta
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = positions[:, None, :, None].float() * frequency  # b 1 t k/2
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Attention(nn.Module):
    """Causal self-attention with rotary positions, grouped keys and values, and a cache."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_size: int, theta: float, bias: bool, qk_norm: bool, eps: float
    ):
        super().__init__()
        self.heads, self.kv_heads, self.head_size, self.theta = heads, kv_heads, head_size, theta
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
        longer: LongContextScaling | None = None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        b, t, _ = x.shape
        theta = self.theta if longer is None else longer.theta
        second = None if expert is None else expert.attention

        def project(name: str, y: Tensor) -> Tensor:
            ours = getattr(self, name)
            return ours(y) if second is None else route(expert.where, ours, getattr(second, name), y)

        query = self.query_norm(project("query", x).view(b, t, self.heads, -1)).transpose(1, 2)
        key = self.key_norm(project("key", x).view(b, t, self.kv_heads, -1)).transpose(1, 2)
        value = project("value", x).view(b, t, self.kv_heads, -1).transpose(1, 2)
        query = rotate(query, positions, theta)
        if longer is not None:
            query = query * longer.scale[:, None, :, None].to(query.dtype)
        key = torch.cat([cache["key"].to(key.dtype), rotate(key, positions, theta)], dim=2)
        value = torch.cat([cache["value"].to(value.dtype), value], dim=2)
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None and t > 1,
            enable_gqa=self.heads != self.kv_heads,
        )
        return project("output", out.transpose(1, 2).reshape(b, t, -1)), {"key": key, "value": value}


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, width: int, ffn: int):
        super().__init__()
        self.gate = nn.Linear(width, ffn, bias=False)
        self.up = nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

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
        longer: LongContextScaling | None = None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        mixed, cache = self.attention(self.norm_attention(x), cache, positions, mask, expert, longer)
        x = x + self.dropout(mixed)
        y = self.norm_mlp(x)
        second = None if expert is None else expert.mlp
        y = self.mlp(y) if second is None else route(expert.where, self.mlp, second, y)
        return x + self.dropout(y), cache


class Transformer(nn.Module, Backbone):
    """Decoder-only transformer of the Llama architecture (arXiv 2302.13971).

    Args:
        kv_heads: heads of keys and values (grouped-query attention); None takes as many as `heads`.
        head_size: None takes width / heads.
        theta: base of the rotary frequencies.
        length: tokens that the weights were trained on. Out of training, longer texts get a larger `theta` (NTK) and
            sharper attention (log-n), as Qwen-7B has it. None: neither.
        eps: of the RMS norms.
        bias: biases on query, key and value (Qwen2).
        qk_norm: RMS norm on every head's queries and keys (Qwen3).
        tied: the head is the embedding.
        checkpoint: recompute the blocks in the backward pass to save memory.
        pretrained: the weights that `mmrnn.build` shall load: a file, a folder, `owner/name` on the Hugging Face hub or
            `package:name/file`. Nothing is loaded here.
    """

    recurrent = False
    hooks = ("layer", "attention", "mlp")

    def __init__(
        self,
        *,
        vocab: int = 32000,
        width: int = 4096,
        depth: int = 32,
        heads: int = 32,
        kv_heads: int | None = None,
        head_size: int | None = None,
        ffn: int = 11008,
        theta: float = 10000.0,
        length: int | None = None,
        eps: float = 1e-5,
        bias: bool = False,
        qk_norm: bool = False,
        tied: bool = False,
        dropout: float = 0.0,
        checkpoint: bool = False,
        pretrained: str | None = None,
    ):
        super().__init__()
        kv_heads = kv_heads or heads
        if heads % kv_heads:
            raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
        if head_size is None and width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads}), or say head_size")
        head_size = head_size or width // heads
        self.vocab, self.width, self.depth, self.checkpoint = vocab, width, depth, checkpoint
        self.pretrained, self.length = pretrained, length
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                Attention(width, heads, kv_heads, head_size, theta, bias, qk_norm, eps),
                SwiGLU(width, ffn),
                eps,
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=eps)
        self.output = None if tied else nn.Linear(width, vocab, bias=False)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Normal with deviation 0.02, smaller at the end of each residual branch (GPT-2)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith(("attention.output.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * self.depth) ** 0.5 if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hook_target(self, layer: int, name: str) -> nn.Module:
        """Attention or MLP of a block.

        Raises:
            ValueError: another name.
        """
        if name not in ("attention", "mlp"):
            return super().hook_target(layer, name)
        return self.blocks[layer].get_submodule(name)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.embedding(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        return F.linear(hidden, self.embedding.weight) if self.output is None else self.output(hidden)

    def state(self, batch: int) -> State:
        """Empty caches. `shared` holds the next position of every row and, once rows have segments, theirs."""
        weight, attention = self.norm.weight, self.blocks[0].attention
        empty = weight.new_zeros(batch, attention.kv_heads, 0, attention.head_size)
        layers = tuple({"key": empty, "value": empty} for _ in self.blocks)
        return State(layers, {"next": torch.zeros(batch, dtype=torch.long, device=weight.device)})

    def forward(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Read a sequence from `state` on.

        Returns:
            The hidden state of every position, after the last norm, and the state after the last position.

        Raises:
            ValueError: `scan` moves patches, which means nothing to attention.
        """
        refuse_scan(sequence, scan, self.depth)
        hook = hook or BlockHooks()
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.state(len(x)) if state is None else state
        positions, mask, shared = positions_and_mask(sequence, state)
        beyond = None
        if self.length is not None and not self.training:
            first = self.blocks[0].attention
            facts = {"length": self.length, "theta": first.theta, "head_size": first.head_size}
            beyond, shared["stretch"] = longer(positions, state.shared.get("stretch"), **facts)
        layers = []
        for layer, (block, old) in enumerate(zip(self.blocks, state.layers, strict=True)):
            x = hook.before(layer, x)
            if self.checkpoint and torch.is_grad_enabled():
                x, new = checkpoint(block, x, old, positions, mask, hook.expert(layer), beyond, use_reentrant=False)
            else:
                x, new = block(x, old, positions, mask, hook.expert(layer), beyond)
            x = hook.after(layer, x)
            layers.append(new)
        return self.norm(x), State(tuple(layers), shared)


def refuse_scan(sequence: Sequence, scan: Scan | None, depth: int) -> None:
    """Raises ValueError where a scan would move patches."""
    layouts = {block.layout for block in sequence.image_spans}
    if scan is not None and any(scan(layer, layout) is not None for layer in range(depth) for layout in layouts):
        raise ValueError("a transformer attends to all patches at once and takes no scan; use scan=forward")


def positions_and_mask(sequence: Sequence, state: State) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Position ids (`b t`), the mask where causal alone does not do, and what the next call has to know."""
    mask, shared, begin = attention_mask(sequence, state)
    positions = sequence.positions
    if positions is None:
        steps = torch.arange(sequence.ids.shape[1], device=sequence.ids.device)
        positions = torch.where(begin >= 0, steps - begin, state.shared["next"][:, None] + steps)
    return positions, mask, {**shared, "next": positions[:, -1] + 1}


def attention_mask(sequence: Sequence, state: State) -> tuple[Tensor | None, dict[str, Tensor], Tensor]:
    """What each position may see (`b 1 t s`; None: all before it), the segments that the next call has to know, and
    for every position where in this sequence its segment began (-1: before it).
    """
    b, t = sequence.ids.shape
    past = state.layers[0]["key"].shape[2]
    steps = torch.arange(t, device=sequence.ids.device)
    shared, mask, begin = {}, None, torch.full((b, t), -1, device=steps.device)
    known, given = state.shared.get("segments"), sequence.segments
    if known is not None or given is not None:
        old = given.new_empty(b, 0) if known is None and past == 0 else known
        old = given[:, :1].expand(b, past) if old is None else old
        new = old[:, -1:].expand(b, t) if given is None else given
        shared["segments"] = every = torch.cat([old, new], dim=1)  # b past+t
        before = every[:, past - 1 : -1] if past else torch.cat([new[:, :1], new[:, :-1]], dim=1)
        begin = torch.where(new != before, steps, -1).cummax(dim=1).values
        mask = every[:, past:, None] == every[:, None, :]
    if (past and t > 1) or mask is not None or sequence.attention_mask is not None:
        seen = torch.arange(past + t, device=steps.device) <= (past + steps)[:, None]
        if sequence.attention_mask is not None:
            seen = torch.cat([sequence.attention_mask.new_ones(b, t, past), sequence.attention_mask], dim=2)
        mask = (seen.expand(b, t, -1) if mask is None else mask & seen)[:, None]
    return mask, shared, begin
