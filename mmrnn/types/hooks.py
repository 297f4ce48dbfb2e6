"""Additions to the blocks of a backbone during one forward pass."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Expert:
    """Expert weights of a block and the mask of positions routed to them.

    Attributes:
        where: True at the positions that the expert computes.
        attention: None: attention has no expert.
        mlp: None: the MLP has no expert.
    """

    where: Bool[Tensor, "b t"]
    attention: nn.Module | None = None
    mlp: nn.Module | None = None


class BlockHooks:
    """Callbacks around the blocks of a backbone for one forward pass; this base class changes nothing."""

    @property
    def state(self) -> dict[str, Tensor]:
        """Tensors (batch axis first) to add to `State.shared` after the forward pass."""
        return {}

    def before(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Change the input of block `layer`."""
        return x

    def after(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Change the output of block `layer`."""
        return x

    def expert(self, layer: int) -> Expert | None:
        """Return the expert weights of block `layer`, or None."""
        return None
