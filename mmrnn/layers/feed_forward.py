"""Feed-forward layer with a norm in front."""

from torch import nn


class FeedForward(nn.Sequential):
    """LayerNorm, four times the width, GELU, back to the width; linear layers without biases (Perceiver, Flamingo)."""

    def __init__(self, width: int):
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
