"""Additions to the blocks of a backbone during one forward pass."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Routing:
    """Positions of an expert among all, as indices: made once for all blocks of a forward pass.

    Attributes:
        where: True at the positions that the expert computes.
        count: number of these positions.
        order: flat positions of both, those that the expert does not compute first, each in order.
        inverse: place of each flat position in `order`.
    """

    where: Bool[Tensor, "b t"]
    count: int
    order: Int[Tensor, " n"]
    inverse: Int[Tensor, " n"]

    @classmethod
    def of(cls, where: Bool[Tensor, "b t"], count: int | None = None) -> "Routing":
        """Make the indices of a mask.

        Args:
            where: the mask.
            count: number of its true positions; None: it is counted, for which a GPU has to be waited for.
        """
        order = where.flatten().long().argsort(stable=True)
        return cls(where, int(where.sum()) if count is None else count, order, order.argsort())

    def permuted(self, order: Int[Tensor, "b t"]) -> "Routing":
        """Return the routing of rows whose position i was position `order[i]`."""
        return Routing.of(self.where.gather(1, order), self.count)


@dataclass(frozen=True)
class Expert:
    """Expert weights of a block and the positions routed to them.

    Attributes:
        routing: positions that the expert computes.
        attention: None: attention has no expert.
        mlp: None: the MLP has no expert.
        mlp_norm: norm in front of `mlp`; None: that of the block.
        mlp_shift: last position behind `mlp_norm` before these; an RNN that has `mlp_norm` in `hooks` reads it.
    """

    routing: Routing
    attention: nn.Module | None = None
    mlp: nn.Module | None = None
    mlp_norm: nn.Module | None = None
    mlp_shift: Float[Tensor, "b d"] | None = None


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

    def keep_shift(self, layer: int, shift: Float[Tensor, "b d"]) -> None:
        """Take the last position behind `Expert.mlp_norm` of block `layer`, which the next pass continues from."""
