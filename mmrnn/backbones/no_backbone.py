"""No language model, for what is trained before there is one."""

from typing import NoReturn

from jaxtyping import Float, Int
from torch import Tensor, nn

from mmrnn.types import Backbone, State

NOTHING = "there is no language model here to read or say anything; choose one with backbone=NAME"


class NoBackbone(nn.Module, Backbone):
    """Stands where a language model will come: BLIP-2's first stage trains the connector with losses of its own.

    Connectors keep the width they have by themselves.

    Args:
        vocab: ids that the tokenizer makes.
    """

    recurrent = False
    hooks = ()
    width = None
    generates = False

    def __init__(self, *, vocab: int = 30523):
        super().__init__()
        self.vocab = vocab

    def embed(self, ids: Int[Tensor, "b t"]) -> NoReturn:
        raise ValueError(NOTHING)

    def state(self, batch: int) -> State:
        return State(())

    def head(self, hidden: Float[Tensor, "*b d"]) -> NoReturn:
        raise ValueError(NOTHING)

    def forward(self, *sequence: object, **more: object) -> NoReturn:
        raise ValueError(NOTHING)
