"""Placeholder for a missing language model."""

from typing import NoReturn

from jaxtyping import Float, Int
from torch import Tensor, nn

from mmrnn.types import Backbone, PositiveInt, State

MESSAGE = "this model has no language model (NoBackbone); choose one with backbone=NAME"


class NoBackbone(nn.Module, Backbone):
    """Placeholder for a model without a language model: BLIP-2's first stage trains the connector alone.

    `width` is None: connectors keep their own width.

    Args:
        vocab: number of token ids.
    """

    recurrent = False
    hooks = ()
    width = None
    depth = 0
    generates = False

    def __init__(self, *, vocab: PositiveInt = 30523):
        super().__init__()
        self.vocab = vocab

    def embed(self, ids: Int[Tensor, "b t"]) -> NoReturn:
        """Raise ValueError: there is no embedding."""
        raise ValueError(MESSAGE)

    def state(self, batch: int) -> State:
        """Return an empty state."""
        return State(())

    def head(self, hidden: Float[Tensor, "*b d"]) -> NoReturn:
        """Raise ValueError: there is no head."""
        raise ValueError(MESSAGE)

    def forward(self, *args: object, **kwargs: object) -> NoReturn:
        """Raise ValueError: there is nothing to run."""
        raise ValueError(MESSAGE)
