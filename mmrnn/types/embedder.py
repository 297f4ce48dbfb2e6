"""Contracts of what embeds images and texts in one space, and of what reads an image and a text together."""

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrnn.types.sequence import Batch


@runtime_checkable
class Embedder(Protocol):
    """Images and texts to vectors of unit length, as a contrastive objective compares them.

    It is an `nn.Module` without buffers, which an objective offers (`Objective.embedder`): itself, or a part of it.
    Checkpoints keep its parameters. An item has one vector or several. Two items are as similar as the cosine of their
    vectors; where one has several and the other one, as that of the best pair.

    Attributes:
        has_heads: it has parameters of its own; False: the backbone gives the vectors, and a checkpoint needs the
            objective's card alone.
        reads_replies: texts are embedded without the words around a reply; False: as training writes a text behind an
            image.
    """

    has_heads: bool = True
    reads_replies: bool = False

    @abstractmethod
    def embed_images(self, model: Any, batch: Batch) -> Float[Tensor, "m q w"]:
        """Embed the first image of every row."""

    @abstractmethod
    def embed_texts(self, model: Any, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]) -> Float[Tensor, "m q w"]:
        """Embed texts.

        Args:
            model: that the objective was trained with.
            ids: as `reads_replies` says, without the slots of the image.
            mask: False at padding, which is on the right.

        Raises:
            ValueError: a text is too long.
        """


@runtime_checkable
class Matcher(Protocol):
    """Embedder that also scores pairs by reading image and text together: better than the cosine, and far slower."""

    @abstractmethod
    def match(
        self, model: Any, batch: Batch, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]
    ) -> Float[Tensor, " m"]:
        """Return the logit that the first image of each row belongs to the text of the same number.

        Args:
            model: that the objective was trained with.
            batch: rows with an image each.
            ids: of the texts, as of `Embedder.embed_texts`.
            mask: likewise.
        """
