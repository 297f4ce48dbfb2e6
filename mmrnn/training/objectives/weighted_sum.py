"""Sum of objectives."""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from mmrnn.model.vlm import VLM
from mmrnn.types import Embedder, NonNegativeFloat, Objective, Output

Part = Objective | Callable[[VLM], Objective]
"""A loss, or the uncalled class of one that is made for a model."""


class WeightedSum(nn.Module, Objective):
    """Several objectives at once, each with its weight.

    Args:
        parts: objectives, or functions that make one for the model.
        weights: one for each part; None: 1 each.

    Raises:
        ValueError: not as many weights as parts.
    """

    def __init__(self, model: VLM, *, parts: Sequence[Part], weights: tuple[NonNegativeFloat, ...] | None = None):
        super().__init__()
        weights = weights or (1.0,) * len(parts)
        if len(weights) != len(parts):
            raise ValueError(f"there are {len(weights)} weights for {len(parts)} parts")
        made = [part(model) if isinstance(part, partial) else part for part in parts]
        self.parts, self.weights = made, tuple(weights)
        # Those that learn are modules of this one.
        self.learned = nn.ModuleList(part for part in made if isinstance(part, nn.Module))
        self.needs_hidden_states = any(part.needs_hidden_states for part in made)
        self.needs_backbone = any(part.needs_backbone for part in made)
        self.needs_images = any(part.needs_images for part in made)

    def forward(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """Sum of the weighted losses."""
        losses = zip(self.terms(), self.losses(model, output), strict=True)
        return sum(weight * loss for (weight, _), loss in losses)

    def terms(self) -> list[tuple[float, Objective]]:
        """The weighted losses of all parts."""
        return [
            (weight * inner, term)
            for weight, part in zip(self.weights, self.parts, strict=True)
            for inner, term in part.terms()
        ]

    def embedder(self) -> Embedder | None:
        """The embedder of the first part that has one."""
        return next((found for part in self.parts if (found := part.embedder()) is not None), None)

    def losses(self, model: VLM, output: Output) -> list[Float[Tensor, ""]]:
        """Losses of all terms of all parts, without their weights."""
        return [loss for part in self.parts for loss in part.losses(model, output)]
