"""Language model from a pattern of mixers."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Several
from inspect import isclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.backbones.attention_mask import positions_and_mask, window_mask
from mmrnn.backbones.mixer import Mixer, MixerInputs, Shared
from mmrnn.backbones.packed_rows import SegmentBounds
from mmrnn.backbones.route import route
from mmrnn.backbones.rwkv import reorder
from mmrnn.backbones.scan import scan_permutations
from mmrnn.backbones.transformer import SwiGLU
from mmrnn.layers.norm import rms_norm
from mmrnn.layers.recompute import run_block
from mmrnn.types import (
    Backbone,
    BackboneTraits,
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

MakeMixer = Callable[[int, int], Mixer]
"""Mixer class with its knobs, called with the width and the place among the layers of its kind."""


class HybridBlock(nn.Module):
    """Pre-norm block: x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, mixer: Mixer, ffn: int, eps: float, zero_centered: bool, dropout: float):
        super().__init__()
        self.norm_mixer = rms_norm(width, eps, zero_centered)
        self.mixer = mixer
        self.norm_mlp = rms_norm(width, eps, zero_centered)
        self.mlp = SwiGLU(width, ffn)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        state: Mapping[str, Tensor],
        inputs: MixerInputs,
        shared: Shared = (),
        expert: Expert | None = None,
        order: Int[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor], Shared]:
        """Return the output, the state after the last position, and what later mixers of the kind share.

        Args:
            order: permutation of the positions for the mixer; None: as they come.
        """
        y = self.norm_mixer(x)
        if order is not None:
            y, *shared = (reorder(z, order) for z in (y, *shared))
        mixed, state, shared = self.mixer(y, state, inputs, tuple(shared))
        if order is not None:
            inverse = order.argsort(dim=1)
            mixed, *shared = (reorder(z, inverse) for z in (mixed, *shared))
        x = x + self.dropout(mixed)
        y = self.norm_mlp(x)
        routed = None if expert is None else expert.mlp
        y = self.mlp(y) if routed is None else route(expert.routing, self.mlp, routed, y)
        return x + self.dropout(y), state, tuple(shared)


class Hybrid(nn.Module, Backbone, ChecksKnobs):
    """Language model whose blocks mix positions as a pattern says: `[delta, delta, delta, attention]`, over and over.

    All blocks have RMS norms and a SwiGLU. Recurrent layers read patches in the order of the scan, which counts these
    layers alone; layers that attend read them row by row. `State.layers` holds of each layer what its mixer keeps.

    Args:
        pattern: names of mixers, layer by layer, repeated to the depth.
        mixers: the mixers by name.
        vocab: rows of the embedding and of the head.
        width: model dimension `d`.
        depth: number of blocks.
        ffn: hidden width of the SwiGLU.
        eps: of the RMS norms.
        zero_centered: the factor of these norms is 1 + weight.
        tie_embeddings: the head shares the weights of the embedding.
        dropout: of both branches of each block.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.
        pretrained: weights that `mmrnn.build` loads: a file, a folder, `owner/name` on the Hugging Face hub or
            `package:name/file`. The constructor loads nothing.

    Raises:
        ValueError: the pattern is empty or names no mixer, or its layers attend to windows of several sizes.
    """

    recurrent = False
    hooks = ("layer", "mlp")

    def __init__(
        self,
        *,
        pattern: Several[str],
        mixers: Mapping[str, MakeMixer],
        vocab: PositiveInt = 248320,
        width: PositiveInt = 1024,
        depth: PositiveInt = 24,
        ffn: PositiveInt = 3584,
        eps: PositiveFloat = 1e-6,
        zero_centered: bool = True,
        tie_embeddings: bool = True,
        dropout: Fraction = 0.0,
        grad_checkpointing: NonNegativeInt = 0,
        pretrained: str | None = None,
    ):
        super().__init__()
        for _, fault in self.knob_faults({"pattern": pattern, "mixers": mixers}):
            raise ValueError(fault)
        self.vocab, self.width, self.depth, self.grad_checkpointing = vocab, width, depth, grad_checkpointing
        self.pretrained = pretrained
        self.pattern = tuple(pattern[layer % len(pattern)] for layer in range(depth))
        places = [self.pattern[:layer].count(name) for layer, name in enumerate(self.pattern)]
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            HybridBlock(width, mixers[name](width, place), ffn, eps, zero_centered, dropout)
            for name, place in zip(self.pattern, places, strict=True)
        )
        self.norm = rms_norm(width, eps, zero_centered)
        self.output = None if tie_embeddings else nn.Linear(width, vocab, bias=False)
        self.recurrent = all(block.mixer.recurrent for block in self.blocks)
        windows = {block.mixer.window for block in self.blocks if not block.mixer.recurrent}
        if len(windows) > 1:
            raise ValueError(f"all layers that attend must have one window, not {windows}; their keys have one mask")
        self.window = next(iter(windows), None)
        self.state_origin = self._origin(pattern)
        self.reset_parameters()

    def _origin(self, pattern: Several[str]) -> StateOrigin:
        layers = [block.mixer.state(0) for block in self.blocks]
        shapes = {name: tuple(value.shape[1:]) for layer in layers for name, value in layer.items()}
        sizes = {f"{name}_{axis}": size for name, shape in shapes.items() for axis, size in enumerate(shape) if size}
        return StateOrigin(f"hybrid {'-'.join(pattern)}", {"depth": self.depth, "width": self.width, **sizes})

    @classmethod
    def traits(cls, knobs: Mapping[str, Any]) -> BackboneTraits:
        """Return whether all, or some, of the layers are recurrent, and the position ids of those that attend."""
        used = [knobs["mixers"][name] for name in dict.fromkeys(knobs["pattern"]) if name in knobs["mixers"]]
        mixers = [(one, {}) if isclass(one) else (one.func, one.keywords) for one in used]
        axes = [mixer.position_axes(**chosen) for mixer, chosen in mixers if not mixer.recurrent]
        common = tuple(count for count in axes[0] if all(count in other for other in axes)) if axes else (1,)
        recurrent = [mixer.recurrent for mixer, _ in mixers]
        return BackboneTraits(all(recurrent), any(recurrent), common)

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a pattern without layers, and names in it that no mixer has. See `ChecksKnobs`."""
        if not knobs["pattern"]:
            yield "pattern", "pattern [] must name at least one mixer"
        for name in dict.fromkeys(knobs["pattern"]):
            if name not in knobs["mixers"]:
                known = ", ".join(knobs["mixers"]) or "none"
                yield "pattern", f"pattern names {name!r}, but mixers has {known}; add it, or name one of them"

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise with a standard deviation of 0.02, divided by sqrt(2 depth) at the end of each branch (GPT-2)."""
        if self.embedding.weight.is_meta:
            return
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=0.02)
        for layer, block in enumerate(self.blocks):
            block.mixer.reset_parameters(layer, self.depth)
            for part, std in ((block.mlp.gate, 1), (block.mlp.up, 1), (block.mlp.down, (2 * self.depth) ** -0.5)):
                nn.init.normal_(part.weight, std=0.02 * std)

    def hook_target(self, layer: int, name: str) -> nn.Module:
        """Return the MLP of block `layer`.

        Raises:
            ValueError: `name` is not `mlp`.
        """
        return self.blocks[layer].mlp if name == "mlp" else super().hook_target(layer, name)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embed token ids."""
        return self.embedding(ids)

    def head(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocab"]:
        """Return the logits of hidden states."""
        return F.linear(hidden, self.embedding.weight) if self.output is None else self.output(hidden)

    def state(self, batch: int) -> State:
        """Return what each mixer starts from, and in `shared`, where layers attend, the next position of each row."""
        layers = tuple(block.mixer.state(batch) for block in self.blocks)
        position = torch.zeros(batch, dtype=torch.long, device=self.embedding.weight.device)
        return State(layers, {} if self.recurrent else {"next_position": position}, self.state_origin)

    def forward(
        self, sequence: Sequence, state: State | None = None, scan: Scan | None = None, hook: BlockHooks | None = None
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Run the blocks over a sequence, continuing from `state`.

        Returns:
            The hidden states after the last norm, and the state after the last position.
        """
        hook = hook or BlockHooks()
        x = self.embed(sequence.ids) if sequence.embeds is None else sequence.embeds
        state = self.resume(state, len(x))
        inputs, common = self._inputs(sequence, state)
        layers, shared = [], dict.fromkeys(self.pattern, ())
        orders = iter(self._orders(scan, sequence))
        for layer, (block, old, name) in enumerate(zip(self.blocks, state.layers, self.pattern, strict=True)):
            x = hook.before(layer, x)
            order = next(orders) if block.mixer.recurrent else None
            given = x, old, inputs, shared[name], hook.expert(layer), order
            x, new, shared[name] = run_block(block, layer, self.grad_checkpointing, *given)
            x = hook.after(layer, x)
            layers.append(new)
        return self.norm(x), State(tuple(layers), common, self.state_origin)

    def _orders(self, scan: Scan | None, sequence: Sequence) -> list[Int[Tensor, "b t"] | None]:
        """Permutations of the positions for the recurrent layers, in order."""
        return scan_permutations(scan, sum(block.mixer.recurrent for block in self.blocks), sequence)

    def _inputs(self, sequence: Sequence, state: State) -> tuple[MixerInputs, dict[str, Tensor]]:
        """Facts about the positions, and the shared tensors of the next state."""
        bounds = SegmentBounds.of(sequence.segments, state.shared.get("segment"))
        common = {name: value for name, value in state.shared.items() if name == "segment"}
        if sequence.segments is not None:
            common["segment"] = sequence.segments[:, -1].clone()
        if self.recurrent:
            return MixerInputs(bounds), common
        positions, mask, kept = positions_and_mask(sequence, state)
        if self.window is not None:
            mask = window_mask(mask, sequence, state, self.window)
            if "segments" in kept:
                first = max(0, kept["segments"].shape[1] - self.window + 1)
                kept["segments"] = kept["segments"][:, first:]
        return MixerInputs(bounds, positions, mask), {**common, **kept}
