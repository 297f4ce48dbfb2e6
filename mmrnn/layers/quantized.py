"""Linear layers whose weight is stored as integer codes with scales."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F


class QuantizedLinear(nn.Module):
    """Base of linear layers without a floating-point weight; the codes are buffers, and are not trained.

    Gradients flow to the input, and to the bias.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.empty(out_features, device="meta")) if bias else None

    @property
    @abstractmethod
    def weight(self) -> Float[Tensor, "out in"]:
        """Weight that the codes stand for, computed at every access."""

    def extra_repr(self) -> str:
        """Return the sizes, for the text of a model."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8Linear(QuantizedLinear):
    """Linear layer with 8-bit codes and a scale for each output: weight = codes * scales.

    The buffers of a new layer are on the meta device.
    """

    codes: Int8[Tensor, "out in"]
    scales: Float[Tensor, " out"]

    def __init__(self, in_features: int, out_features: int, bias: bool):
        super().__init__(in_features, out_features, bias)
        self.register_buffer("codes", torch.empty(out_features, in_features, dtype=torch.int8, device="meta"))
        self.register_buffer("scales", torch.empty(out_features, device="meta"))

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """Weight that the codes stand for, computed at every access."""
        return self.codes.to(self.scales.dtype) * self.scales[:, None]

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        """Compute x W^T + b."""
        y = F.linear(x, self.codes.to(x.dtype))
        y = y * self.scales.to(y.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)
