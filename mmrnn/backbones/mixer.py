"""Contract of the mixers of a `Hybrid` backbone: the part of a block that mixes positions."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrnn.backbones.packed_rows import SegmentBounds
from mmrnn.types import Resettable

Shared = tuple[Float[Tensor, "b t c"], ...]
"""Tensors that the first layer of a kind hands to later ones of that kind."""


@dataclass(frozen=True)
class MixerInputs:
    """Facts about the positions of one forward pass, the same for all blocks.

    Attributes:
        bounds: segments of packed rows; None: each row is one segment that continues its state.
        positions: position ids, with an axis for each id of a token where there are several; None: no layer attends.
        mask: True where a query attends to a key, cached keys first and the window included; None: causal.
    """

    bounds: SegmentBounds | None = None
    positions: Int[Tensor, "b t *axes"] | None = None
    mask: Bool[Tensor, "b 1 t s"] | None = None


@runtime_checkable
class Mixer(Resettable, Protocol):
    """Part of a block that mixes positions: an attention, or a recurrence.

    It is built with the model dimension and its place among the layers of its kind.

    Attributes:
        recurrent: the size of its state does not depend on the number of positions read; patches can be read in the
            order of a scan. False: it attends, and its state is `key` and `value`, `b h s k`.
        window: positions that it attends to, its own among them; None: all before it.
    """

    recurrent: bool
    window: int | None = None

    @classmethod
    def position_axes(cls, **_: Any) -> tuple[int, ...]:
        """Return the numbers of position ids a token that a mixer with these knobs can read; empty: it reads none."""
        return ()

    @abstractmethod
    def state(self, batch: int) -> dict[str, Tensor]:
        """Return the initial state by name, batch axis first."""

    @abstractmethod
    def __call__(
        self, x: Float[Tensor, "b t d"], state: Mapping[str, Tensor], inputs: MixerInputs, shared: Shared = ()
    ) -> tuple[Float[Tensor, "b t d"], dict[str, Tensor], Shared]:
        """Return the output, the state after the last position, and `shared` for later layers of the kind."""

    @abstractmethod
    def reset_parameters(self, layer: int, depth: int) -> None:
        """Initialise all parameters for block `layer` of `depth`."""
