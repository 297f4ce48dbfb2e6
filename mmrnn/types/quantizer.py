"""Contract of quantizers."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Literal, Protocol, runtime_checkable

from torch import nn

from mmrnn.types.sequence import Batch

MatrixDtype = Literal["fp32", "bf16"]


@runtime_checkable
class Quantizer(Protocol):
    """Replacement of weights of a built model by integer codes, once its weights are loaded.

    Attributes:
        quantizes: layers hold codes afterwards, which cannot be trained.
        matrices: type in which a checkpoint holds the other matrices.
        calibration_samples: samples of the data that it needs; 0: none.
    """

    quantizes: bool = True
    matrices: MatrixDtype = "fp32"
    calibration_samples: int = 0

    @abstractmethod
    def __call__(self, model: nn.Module, batches: Iterable[Batch] = ()) -> None:
        """Replace the weights in place by codes that stand for them.

        Args:
            batches: of the samples that it needs.

        Raises:
            ValueError: the model has no such layers, or layers of a size that cannot be quantised.
        """

    @abstractmethod
    def prepare(self, model: nn.Module) -> None:
        """Replace the layers by empty ones of the same sizes on the meta device, which a checkpoint fills with codes.

        Raises:
            ValueError: as `__call__`.
        """
