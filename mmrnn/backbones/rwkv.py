"""What all RWKV versions share: token shift, channel mix, blocks around them, scans and the state."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmrnn.backbones.native_decode import native_step
from mmrnn.backbones.route import route
from mmrnn.backbones.scan import scan_permutations
from mmrnn.layers.linear import Linear
from mmrnn.types import Backbone, BlockHooks, Expert, Scan, Sequence, State
from mmrnn_kernels import lerp, relu_square, sigmoid_gate, token_shift


@dataclass(frozen=True)
class SegmentBounds:
    """Where packed rows start anew.

    Attributes:
        starts: True where a segment starts that does not go on with what was read before.
        cu_seqlens: ends of all segments when the rows are laid end to end, with a leading zero.
        first, last: index of the first and of the last segment of every row.
    """

    starts: Bool[Tensor, "b t"]
    cu_seqlens: Int[Tensor, " edges"]
    first: Int[Tensor, " b"]
    last: Int[Tensor, " b"]

    @classmethod
    def of(cls, segments: Int[Tensor, "b t"] | None, before: Int[Tensor, " b"] | None) -> "SegmentBounds | None":
        """None where every row goes on with one segment; `before` is the segment that each state comes from."""
        if segments is None:
            return None
        before = segments[:, 0] if before is None else before
        starts = torch.cat([before[:, None], segments[:, :-1]], dim=1) != segments
        if not bool(starts.any()):
            return None
        heads = starts.clone()
        heads[:, 0] = True
        edges = heads.flatten().nonzero().flatten()
        cu_seqlens = torch.cat([edges, edges.new_tensor([segments.numel()])])
        last = heads.sum(1).cumsum(0) - 1
        first = F.pad(last[:-1] + 1, (1, 0))
        return cls(starts, cu_seqlens, first, last)


def cast_for_autocast(x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    """The type that autocast computes in: norms answer in fp32, and all that follows would be twice as large."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def run_lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b *t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None,
    bounds: SegmentBounds | None,
    backend: str,
) -> list[Float[Tensor, "b t d"]]:
    """Token shift into n mixtures, of rows that may be packed; `previous` is before the first or before each token."""
    starts = None if bounds is None else bounds.starts
    return lerp(x, previous, weights, offsets, starts=starts, backend=backend)


def run_wkv(
    op: Callable[..., tuple[Tensor, Tensor]],
    tensors: tuple[Float[Tensor, "b t h k"], ...],
    constants: tuple[Tensor, ...],
    state: Float[Tensor, "b h k v"],
    bounds: SegmentBounds | None,
    backend: str,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Call a WKV operator on rows that may be packed: every row continues from its state, later segments from zero."""
    if bounds is None:
        return op(*tensors, *constants, state, backend=backend)
    b, t = tensors[0].shape[:2]
    flat = tuple(x.reshape(1, b * t, *x.shape[2:]) for x in tensors)
    state = state.masked_fill(bounds.starts[:, 0, None, None, None], 0)
    start = state.new_zeros(len(bounds.cu_seqlens) - 1, *state.shape[1:]).index_copy(0, bounds.first, state)
    out, end = op(*flat, *constants, start, cu_seqlens=bounds.cu_seqlens, backend=backend)
    return out.view(b, t, *out.shape[2:]), end[bounds.last]


class ChannelMix(nn.Module):
    """sigmoid(receptance) * value(relu(key)^2), with a static token shift (RWKV-6: arXiv 2404.05892, section 4.2.3).

    The learned weights are those of the previous token.
    """

    def __init__(self, width: int, ffn: int, backend: str = "auto"):
        super().__init__()
        self.backend = backend
        self.lerp_k = nn.Parameter(torch.zeros(width))
        self.lerp_r = nn.Parameter(torch.zeros(width))
        self.key = Linear(width, ffn, bias=False)
        self.receptance = Linear(width, width, bias=False)
        self.value = Linear(ffn, width, bias=False)

    def weights(self) -> Float[Tensor, "n d"]:
        """Of the previous token, in the mixtures for key and receptance."""
        return torch.stack([self.lerp_k, self.lerp_r])

    def forward(
        self, x: Float[Tensor, "b t d"], previous: Float[Tensor, "b *t d"], bounds: SegmentBounds | None = None
    ) -> Float[Tensor, "b t d"]:
        k, r = run_lerp(x, previous, self.weights(), None, bounds, self.backend)
        value = self.value(relu_square(self.key(k), backend=self.backend))
        return sigmoid_gate(self.receptance(r), value, backend=self.backend)

    @torch.no_grad()
    def reset(self, layer: int, depth: int) -> None:
        """The published initialisation (RWKV-LM since April 2024)."""
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.receptance.weight)
        nn.init.zeros_(self.value.weight)
        share = ramp(self.lerp_k) ** (1 - layer / depth)
        self.lerp_k.copy_(1 - share)
        self.lerp_r.copy_(1 - share)


class Block(nn.Module):
    """x + time_mix(ln(x)), then x + channel_mix(ln(x)); the first block normalises its input before.

    What a time mix hands to those of later layers (RWKV-7 its first values) goes through `shared`.
    """

    def __init__(self, width: int, time_mix: nn.Module, channel_mix: nn.Module, first: bool, dropout: float):
        super().__init__()
        self.norm_in = nn.LayerNorm(width) if first else nn.Identity()
        self.norm_time = nn.LayerNorm(width)
        self.time_mix = time_mix
        self.norm_channel = nn.LayerNorm(width)
        self.channel_mix = channel_mix
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        state: dict[str, Tensor],
        bounds: SegmentBounds | None,
        shared: tuple[Float[Tensor, "b t c"], ...] = (),
        expert: Expert | None = None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor], tuple[Float[Tensor, "b t c"], ...]]:
        x = self.norm_in(x)
        y = cast_for_autocast(self.norm_time(x))
        mixed, wkv, *shared = self.time_mix(y, state["time_shift"], state["wkv"], bounds, *shared)
        x = x + self.dropout(mixed)
        z = cast_for_autocast(self.norm_channel(x))
        if expert is None:
            ffn_out = self.channel_mix(z, state["channel_shift"], bounds)
        else:
            previous = token_shift(z, state["channel_shift"], None if bounds is None else bounds.starts)
            ffn_out = route(expert.where, self.channel_mix, expert.mlp, z, previous)
        x = x + self.dropout(ffn_out)
        return x, {"time_shift": y[:, -1], "wkv": wkv, "channel_shift": z[:, -1]}, tuple(shared)


class RWKV(nn.Module, Backbone):
    """Embedding, blocks, head and state of an RWKV language model; a version names the two mixes of each layer.

    Embeddings (of text and of images alike) pass through the first block's input norm.
    """

    recurrent = True
    hooks = ("layer", "mlp")
    native: tuple[type[nn.Module], ...] = ()
    """Block, time mix and channel mix, where native code knows them (step.py); parts derived from them it does not."""

    def __init__(
        self,
        time_mix: Callable[[int], nn.Module],
        channel_mix: Callable[[int], nn.Module],
        *,
        vocab: int,
        width: int,
        depth: int,
        dropout: float,
        grad_checkpointing: bool,
        learned_state: bool,
    ):
        super().__init__()
        self.vocab, self.width, self.depth, self.grad_checkpointing = vocab, width, depth, grad_checkpointing
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            Block(width, time_mix(layer), channel_mix(layer), layer == 0, dropout) for layer in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.output = Linear(width, vocab, bias=False)
        heads, size = self.blocks[0].time_mix.heads, self.blocks[0].time_mix.head_size
        self.start = nn.Parameter(torch.zeros(depth, heads, size, size)) if learned_state else None
        self._shape = (heads, size, size)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """The published initialisation (RWKV-LM since April 2024)."""
        nn.init.uniform_(self.embedding.weight, -1e-4, 1e-4)
        nn.init.orthogonal_(self.output.weight, gain=0.5 * max(1, self.vocab / self.width) ** 0.5)
        for layer, block in enumerate(self.blocks):
            block.time_mix.reset(layer, self.depth)
            block.channel_mix.reset(layer, self.depth)

    def hook_target(self, layer: int, name: str) -> nn.Module:
        """The channel mix, which is called `mlp` in `hooks`.

        Raises:
            ValueError: another name.
        """
        if name != "mlp":
            return super().hook_target(layer, name)
        return self.blocks[layer].channel_mix

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        return self.embedding(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        return self.output(hidden)

    def state(self, batch: int) -> State:
        """Shifts of zero, and WKV matrices of zero or (a state-tuned model) as they were learnt."""
        weight = self.norm.weight
        shift = weight.new_zeros(batch, self.width)
        zero = weight.new_zeros(batch, *self._shape, dtype=torch.promote_types(weight.dtype, torch.float32))
        layers = []
        for layer in range(self.depth):
            wkv = zero if self.start is None else self.start[layer].to(zero.dtype).expand_as(zero)
            layers.append({"time_shift": shift, "wkv": wkv, "channel_shift": shift})
        return State(tuple(layers))

    def forward(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Read a sequence from `state` on.

        Returns:
            The hidden state of every position, after the last norm, and the state after the last position.
        """
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.state(len(x)) if state is None else state
        if hook is None and sequence.segments is None and (found := native_step(self, x, state)) is not None:
            return found
        bounds = SegmentBounds.of(sequence.segments, state.shared.get("segment"))
        hook = hook or BlockHooks()
        layers, shared = [], ()
        moves = scan_permutations(scan, self.depth, sequence)
        for layer, (block, old, order) in enumerate(zip(self.blocks, state.layers, moves, strict=True)):
            x, expert = hook.before(layer, x), hook.expert(layer)
            if order is not None:
                x, *shared = (reorder(y, order) for y in (x, *shared))
                expert = None if expert is None else replace(expert, where=expert.where.gather(1, order))
            if self.grad_checkpointing and torch.is_grad_enabled():
                x, new, shared = checkpoint(block, x, old, bounds, tuple(shared), expert, use_reentrant=False)
            else:
                x, new, shared = block(x, old, bounds, tuple(shared), expert)
            if order is not None:
                back = order.argsort(dim=1)
                x, *shared = (reorder(y, back) for y in (x, *shared))
            x = hook.after(layer, x)
            layers.append(new)
        common = state.shared if sequence.segments is None else {"segment": sequence.segments[:, -1]}
        return self.norm(x), State(tuple(layers), common)


def reorder(x: Float[Tensor, "b t d"], order: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
    """Row i of the answer is row `order[i]` of `x`."""
    return x.gather(1, order[..., None].expand_as(x))


def ramp(like: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """0/d, 1/d, ... (d-1)/d."""
    return torch.arange(len(like), device=like.device, dtype=like.dtype) / len(like)


def reset_wkv(mix: nn.Module, layer: int, depth: int) -> None:
    """What the time mixes of RWKV-5 and RWKV-6 start from alike: decay, bonus, norm and projections."""
    size, rise = mix.decay.numel(), layer / max(depth - 1, 1)  # 0 for the first layer, 1 for the last
    index = torch.arange(size, device=mix.decay.device, dtype=mix.decay.dtype)
    place = index / max(size - 1, 1)
    mix.decay.copy_((-6 + 5 * place ** (0.7 + 1.3 * rise)).view_as(mix.decay))
    mix.bonus.copy_((rise * (1 - place) + 0.1 * ((index + 1) % 3 - 1)).view_as(mix.bonus))
    nn.init.orthogonal_(mix.receptance.weight)
    nn.init.orthogonal_(mix.value.weight)
    nn.init.orthogonal_(mix.key.weight, gain=0.1)
    if mix.gate is not None:
        nn.init.orthogonal_(mix.gate.weight, gain=0.1)
    nn.init.zeros_(mix.output.weight)
    mix.norm.weight.fill_(((1 + layer) / depth) ** 0.7)


def default_ffn(width: int) -> int:
    """The width of the channel mix that RWKV-5 and RWKV-6 were published with: 3.5 times, in steps of 32."""
    return max(int(width * 3.5) // 32, 1) * 32


def default_heads(width: int, heads: int | None, head_size: int) -> int:
    """How many heads there are when nobody says.

    Raises:
        ValueError: the width is no multiple of the head size.
    """
    if heads is None and width % head_size:
        raise ValueError(f"width ({width}) must be a multiple of head_size ({head_size}), or say how many heads")
    return width // head_size if heads is None else heads
