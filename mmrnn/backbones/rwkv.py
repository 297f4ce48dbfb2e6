"""Base of the RWKV language models: channel mix, blocks, scans and state."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmrnn.backbones.native_decode import native_decode_step
from mmrnn.backbones.packed_rows import SegmentBounds, run_lerp
from mmrnn.backbones.route import route
from mmrnn.backbones.rwkv_init import channel_ramp, head_faults
from mmrnn.backbones.scan import scan_permutations
from mmrnn.layers.linear import Linear
from mmrnn.layers.recompute import run_block
from mmrnn.types import Backbone, BlockHooks, ChecksKnobs, Expert, Scan, Sequence, State, StateOrigin, reset_layers
from mmrnn_kernels import relu_square, sigmoid_gate, token_shift

Backend = Literal["auto", "triton", "cpu", "chunked", "reference"]
"""Implementations of the operators."""

EXPERT_SHIFT = "expert_shift"
"""Name of the last position behind the norm of an expert, which its hook keeps."""


class ChannelMix(nn.Module):
    """Channel mix of RWKV-6: sigmoid(receptance) * value(relu(key)^2), with a static token shift.

    arXiv 2404.05892, section 4.2.3. The learned weights are those of the previous token.
    """

    def __init__(self, width: int, ffn: int, backend: str = "auto"):
        super().__init__()
        self.backend = backend
        self.lerp_k = nn.Parameter(torch.zeros(width))
        self.lerp_r = nn.Parameter(torch.zeros(width))
        self.key = Linear(width, ffn, bias=False)
        self.receptance = Linear(width, width, bias=False)
        self.value = Linear(ffn, width, bias=False)

    def shift_weights(self) -> Float[Tensor, "n d"]:
        """Return the weights of the previous token, for key and receptance."""
        return torch.stack([self.lerp_k, self.lerp_r])

    def forward(
        self, x: Float[Tensor, "b t d"], previous: Float[Tensor, "b *t d"], bounds: SegmentBounds | None = None
    ) -> Float[Tensor, "b t d"]:
        """Mix the channels; `previous` is the token before the first one, or before every one."""
        k, r = run_lerp(x, previous, self.shift_weights(), None, bounds, self.backend)
        value = self.value(relu_square(self.key(k), backend=self.backend))
        return sigmoid_gate(self.receptance(r), value, backend=self.backend)

    @torch.no_grad()
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise as published (RWKV-LM since April 2024)."""
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.receptance.weight)
        nn.init.zeros_(self.value.weight)
        current = channel_ramp(self.lerp_k) ** (1 - layer / depth)
        self.lerp_k.copy_(1 - current)
        self.lerp_r.copy_(1 - current)


class Block(nn.Module):
    """RWKV block: x + time_mix(norm(x)), then x + channel_mix(norm(x)); the first block also normalises its input.

    `shared` carries what a time mix passes to those of later layers (RWKV-7: the values of the first layer).
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
        """Return the output, the state after the last position, and `shared` for the next block."""
        x = self.norm_in(x)
        y = cast_for_autocast(self.norm_time(x))
        mixed, wkv, *shared = self.time_mix(y, state["time_shift"], state["wkv"], bounds, *shared)
        x = x + self.dropout(mixed)
        z = cast_for_autocast(self.norm_channel(x))
        # Clones, because a view of the last position would keep all positions in memory.
        new = {"time_shift": y[:, -1].clone(), "wkv": wkv, "channel_shift": z[:, -1].clone()}
        if expert is None:
            ffn_out = self.channel_mix(z, state["channel_shift"], bounds)
        else:
            ffn_out, last = self._mix_routed(x, z, state["channel_shift"], bounds, expert)
            new |= last
        return x + self.dropout(ffn_out), new, tuple(shared)

    def _mix_routed(
        self,
        x: Float[Tensor, "b t d"],
        z: Float[Tensor, "b t d"],
        shift: Float[Tensor, "b d"],
        bounds: SegmentBounds | None,
        expert: Expert,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor]]:
        """Channel mix of the block and of an expert; one with a norm of its own also has a token shift of its own."""
        starts = None if bounds is None else bounds.starts
        inputs = z, token_shift(z, shift, starts)
        if expert.mlp_norm is None:
            return route(expert.routing, self.channel_mix, expert.mlp, *inputs), {}
        own = cast_for_autocast(expert.mlp_norm(x))
        theirs = own, token_shift(own, expert.mlp_shift.to(own.dtype), starts)
        out = route(expert.routing, self.channel_mix, expert.mlp, *inputs, expert_inputs=theirs)
        return out, {EXPERT_SHIFT: own[:, -1].clone()}


class RWKV(nn.Module, Backbone, ChecksKnobs):
    """Base class of the RWKV language models: a version supplies the time mix and channel mix of each layer.

    Embeddings, of text and of images alike, pass through the input norm of the first block. With `vocab` 0 there is
    neither embedding nor head: the blocks alone, which read embeddings of another part.
    """

    recurrent = True
    hooks = ("layer", "mlp", "mlp_norm")
    kind = "rwkv"
    """Name of the version, which its states carry."""
    native: tuple[type[nn.Module], ...] = ()
    """Exact types of block, time mix and channel mix that `native_decode` computes; empty: it has no such code."""

    def __init__(
        self,
        time_mix: Callable[[int], nn.Module],
        channel_mix: Callable[[int], nn.Module],
        *,
        vocab: int,
        width: int,
        depth: int,
        dropout: float,
        grad_checkpointing: int,
        learned_state: bool,
    ):
        super().__init__()
        self.vocab, self.width, self.depth, self.grad_checkpointing = vocab, width, depth, grad_checkpointing
        self.embedding = nn.Embedding(vocab, width) if vocab else None
        self.blocks = nn.ModuleList(
            Block(width, time_mix(layer), channel_mix(layer), layer == 0, dropout) for layer in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.output = Linear(width, vocab, bias=False) if vocab else None
        heads, size = self.blocks[0].time_mix.heads, self.blocks[0].time_mix.head_size
        self.start: nn.Parameter | None = None
        self._wkv_shape = (heads, size, size)
        if learned_state:
            self.learn_state()
        self.state_origin = StateOrigin(self.kind, {"depth": depth, "width": width, "heads": heads, "head_size": size})
        self.reset_parameters()

    def learn_state(self) -> None:
        """Start from learned WKV matrices, which are zero; those that are there stay."""
        if self.start is None:
            self.start = nn.Parameter(self.norm.weight.detach().new_zeros(self.depth, *self._wkv_shape))

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        if self.start is not None:
            nn.init.zeros_(self.start)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as published (RWKV-LM since April 2024); on the meta device there is nothing to initialise."""
        if self.norm.weight.is_meta:
            return
        if self.vocab:
            nn.init.uniform_(self.embedding.weight, -1e-4, 1e-4)
            nn.init.orthogonal_(self.output.weight, gain=0.5 * max(1, self.vocab / self.width) ** 0.5)
        for layer, block in enumerate(self.blocks):
            block.time_mix.reset_parameters(layer, self.depth)
            block.channel_mix.reset_parameters(layer, self.depth)

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield that the heads do not fill the width. A version with other knobs has no such fault."""
        if {"width", "heads", "head_size"} <= knobs.keys():
            yield from head_faults(knobs["width"], knobs["heads"], knobs["head_size"])

    def hook_target(self, layer: int, name: str) -> nn.Module:
        """Return the channel mix of block `layer`, which hooks know as `mlp`, or the norm in front of it, `mlp_norm`.

        Raises:
            ValueError: `name` is another one.
        """
        block = self.blocks[layer]
        found = {"mlp": block.channel_mix, "mlp_norm": block.norm_channel}
        return found[name] if name in found else super().hook_target(layer, name)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids.

        Raises:
            ValueError: there is no embedding.
        """
        if self.embedding is None:
            raise ValueError("blocks alone (vocab=0) read embeddings of another part, and have none for ids")
        return self.embedding(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Return the logits of hidden states.

        Raises:
            ValueError: there is no head.
        """
        if self.output is None:
            raise ValueError("blocks alone (vocab=0) have no head")
        return self.output(hidden)

    def state(self, batch: int) -> State:
        """Return the initial state: zero, but for the learned WKV matrices of a state-tuned model."""
        weight = self.norm.weight
        layers = []
        for layer in range(self.depth):
            shifts = {name: weight.new_zeros(batch, self.width) for name in ("time_shift", "channel_shift")}
            wkv = weight.new_zeros(batch, *self._wkv_shape, dtype=torch.promote_types(weight.dtype, torch.float32))
            layers.append({**shifts, "wkv": wkv if self.start is None else wkv + self.start[layer].to(wkv.dtype)})
        return State(tuple(layers), origin=self.state_origin)

    def forward(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the blocks over a sequence, continuing from `state`.

        Returns:
            The hidden states after the last norm, and the state after the last position.
        """
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.resume(state, x.shape[0])
        if hook is None and sequence.segments is None and (decoded := native_decode_step(self, x, state)) is not None:
            return decoded
        bounds = SegmentBounds.of(sequence.segments, state.shared.get("segment"))
        hook = hook or BlockHooks()
        layers, shared = [], ()
        permutations = scan_permutations(scan, self.depth, sequence)
        for layer, (block, old, order) in enumerate(zip(self.blocks, state.layers, permutations, strict=True)):
            x, expert = hook.before(layer, x), hook.expert(layer)
            if order is not None:
                x, *shared = (reorder(y, order) for y in (x, *shared))
                expert = None if expert is None else replace(expert, routing=expert.routing.permuted(order))
            inputs = x, old, bounds, tuple(shared), expert
            x, new, shared = run_block(block, layer, self.grad_checkpointing, *inputs)
            if EXPERT_SHIFT in new:
                hook.keep_shift(layer, new.pop(EXPERT_SHIFT))
            if order is not None:
                inverse = order.argsort(dim=1)
                x, *shared = (reorder(y, inverse) for y in (x, *shared))
            x = hook.after(layer, x)
            layers.append(new)
        common = state.shared if sequence.segments is None else {"segment": sequence.segments[:, -1].clone()}
        return self.norm(x), State(tuple(layers), common, self.state_origin)


def cast_for_autocast(x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    """Cast to the dtype of autocast, which norms return fp32 under: token shifts would take twice the memory."""
    kind = x.device.type
    if kind == "meta":  # which autocast does not know
        return x
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def reorder(x: Float[Tensor, "b t d"], order: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
    """Permute the positions of each row: position i of the result is position `order[i]` of `x`."""
    return x.gather(1, order[..., None].expand_as(x))
