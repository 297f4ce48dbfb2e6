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
        hidden: hidden states after the last norm; None where the objective does without the backbone.
        state: state after the last position; None as `hidden`.
        sequence: the sequence that the backbone read, images embedded.
        batch: the input.
        hidden_states: inputs of all blocks and `hidden`, with `output_hidden_states`; else empty.
    """

    hidden: Float[Tensor, "b t d"] | None
    state: State | None
    sequence: Sequence
    batch: Batch | None = None
    hidden_states: tuple[Float[Tensor, "b t d"], ...] = ()
