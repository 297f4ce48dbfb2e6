"""Contract of training objectives."""

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mmrnn.types.embedder import Embedder
from mmrnn.types.output import Output
from mmrnn.types.reset import Resettable
from mmrnn.types.sequence import Batch, Sequence


@runtime_checkable
class Objective(Resettable, Protocol):
    """Loss of a batch. One with parameters is an `nn.Module`; its constructor takes the model.

    Attributes:
        needs_backbone: the backbone runs first.
        needs_hidden_states: `Output.hidden_states` is filled.
        needs_images: it reads the images of a batch, so that cached features do not do.
        compares_samples: it compares the samples of a batch, so that a row must hold one.
    """

    needs_backbone: bool = True
    needs_hidden_states: bool = False
    needs_images: bool = False
    compares_samples: bool = False

    @abstractmethod
    def __call__(self, model: Any, output: Output) -> Float[Tensor, ""]:
        """Compute the loss, a mean over the units of the batch."""

    def num_units(self, batch: Batch) -> int:
        """Return the number of units (by default rows) that the loss is the mean over."""
        return len(batch.sequence.ids)

    def target_weights(self, sequence: Sequence) -> Float[Tensor, "b t"] | None:
        """Return the weights with which the losses of the targets add up to that of the whole batch.

        None (by default): the loss is no sum over targets, so that a batch cannot be read in pieces (`train_chunk`).
        An objective that answers otherwise uses `sequence.loss_weights` where a piece of a batch has them.
        """
        return None

    def embedder(self) -> Embedder | None:
        """Return what it trains to embed images and texts in one space; None (by default): it trains no such thing."""
        return None

    def terms(self) -> "list[tuple[float, Objective]]":
        """Return the weighted losses that this one is the sum of, each a mean over units of its own."""
        return [(1.0, self)]

    def losses(self, model: Any, output: Output) -> list[Float[Tensor, ""]]:
        """Compute the loss of each of `terms`, without its weight; terms that share work compute it once here."""
        return [term(model, output) for _, term in self.terms()]
