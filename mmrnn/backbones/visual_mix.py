"""A second channel mix for visual tokens, with its own norm and token shift (VisualRWKV v7.10)."""

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.backbones.expert import MLPExpert
from mmrnn.types import Backbone, BlockHooks, Expert, Routing, Sequence, State

SHIFT = "visual_shift"
"""Name of the token shifts in `State.shared`, `b depth d`."""


class VisualMixHooks(BlockHooks):
    """Second channel mix of every block, the visual tokens, and the token shifts for one sequence."""

    def __init__(self, hook: "VisualChannelMix", sequence: Sequence, shifts: Float[Tensor, "b depth d"]):
        self.layers, self.routing = hook.layers, Routing.of(sequence.visual)
        self.shifts = list(shifts.unbind(1))

    @property
    def state(self) -> dict[str, Tensor]:
        """Last position behind the norm of every block."""
        return {SHIFT: torch.stack(self.shifts, dim=1)}

    def expert(self, layer: int) -> Expert:
        """Return norm and channel mix of block `layer`."""
        parts = self.layers[layer]
        return Expert(self.routing, mlp=parts["mlp"], mlp_norm=parts["mlp_norm"], mlp_shift=self.shifts[layer])

    def keep_shift(self, layer: int, shift: Float[Tensor, "b d"]) -> None:
        """Keep the last position of block `layer`."""
        self.shifts[layer] = shift


class VisualChannelMix(MLPExpert):
    """`x + where(visual, mix_v(norm_v(x)), mix(norm(x)))` in every block of an RNN, begun as copies of the block's.

    Each channel mix shifts over the whole row behind its own norm, so that the state has a second shift a block, which
    texts move on, too.
    """

    needs = ("mlp", "mlp_norm")
    looks_ahead = False

    def __init__(self, backbone: Backbone, media_width: int | None = None):
        super().__init__(backbone, media_width)
        self.width = backbone.width

    def start(self, sequence: Sequence, state: State | None) -> BlockHooks:
        """Route the visual tokens of `sequence` to the second channel mix."""
        known = None if state is None else state.shared.get(SHIFT)
        if known is None:
            weight = next(self.parameters())
            known = weight.new_zeros(len(sequence.ids), len(self.layers), self.width)
        return VisualMixHooks(self, sequence, known)
