"""An encoder that runs another one on parts of its input."""

from collections.abc import Sequence

from torch import nn

from mmrnn.types import Encoder


class AroundTower(nn.Module, Encoder):
    """Base of encoders without weights beside those of their `tower`.

    Attributes:
        tower: a built encoder.
    """

    tower: Encoder

    def inner_encoders(self) -> Sequence[Encoder]:
        """The tower, which has weights of its own."""
        return (self.tower,)

    def weight_root(self) -> str:
        """Path of the tower, which is published in place of this encoder."""
        return "tower"
