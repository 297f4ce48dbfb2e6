"""Contract of a connector that also encodes text."""

from abc import abstractmethod
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrnn.types.parts import Connector


@runtime_checkable
class TextConnector(Connector, Protocol):
    """Connector with a text branch (first stage of BLIP-2, arXiv 2301.12597).

    A `mask` over text is False at padding.

    Attributes:
        vocab: number of token ids of the text branch.
        hidden_width: `w`, of the hidden states of queries and text.
    """

    vocab: int
    hidden_width: int

    @abstractmethod
    def forward_image(self, tokens: Float[Tensor, "m n e"]) -> Float[Tensor, "m q w"]:
        """Return the hidden states of the queries, given the image."""

    @abstractmethod
    def forward_text(self, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]) -> Float[Tensor, "m t w"]:
        """Return the hidden states of texts by themselves, with bidirectional attention."""

    @abstractmethod
    def forward_joint(
        self,
        tokens: Float[Tensor, "m n e"],
        ids: Int[Tensor, "m t"],
        mask: Bool[Tensor, "m t"],
        mode: Literal["bidirectional", "causal"] = "bidirectional",
    ) -> tuple[Float[Tensor, "m q w"], Float[Tensor, "m t w"]]:
        """Return the hidden states of queries and texts together; with `causal` the queries attend to no text."""

    @abstractmethod
    def next_token_logits(self, hidden: Float[Tensor, "m t w"]) -> Float[Tensor, "m t vocab"]:
        """Return the logits of the token after each position of a text."""
