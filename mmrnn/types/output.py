"""Result of a forward pass."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mmrnn.types.sequence import Batch, Sequence
from mmrnn.types.state import State


@dataclass(frozen=True)
class Output:
    """Result of `VLM.forward`; `model.head(hidden)` gives the logits.

    Attributes:
        hidden: after the last norm; None where an objective does without the backbone.
        hidden_states: the inputs of all blocks and `hidden`, where they were asked for.
    """

    hidden: Float[Tensor, "b t d"] | None
    state: State | None
    sequence: Sequence
    batch: Batch | None = None
    hidden_states: tuple[Float[Tensor, "b t d"], ...] = ()
