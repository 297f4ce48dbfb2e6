"""Linear layers whose weight is stored as integer codes with scales."""

from abc import abstractmethod
from operator import is_not
from typing import Any

import torch
from jaxtyping import BFloat16, Float, Int8, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn_kernels.linear import codes_linear

MULTIPLE = 16
"""Outputs of a layer with 4-bit codes are a multiple of this, for the products of torch."""


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
        y = codes_linear(x, self.codes, self.scales)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Int4Linear(QuantizedLinear):
    """Linear layer with 4-bit codes: weight = ((codes - 8) * scales + zeros) * input_scales, in groups of inputs.

    On a CPU the codes are packed for torch's product at the first call, and it is computed in bf16. Elsewhere, and
    where gradients flow, the weight is computed for every product.

    The buffers of a new layer are on the meta device. `codes` holds two a byte, the lower half the first.

    Args:
        group_size: inputs that share a scale and a zero point.
        awq: there are factors of the inputs.
    """

    codes: UInt8[Tensor, "out in/2"]
    scales: BFloat16[Tensor, "out groups"]
    zeros: BFloat16[Tensor, "out groups"]
    input_scales: BFloat16[Tensor, " in"] | None

    def __init__(self, in_features: int, out_features: int, bias: bool, *, group_size: int, awq: bool):
        super().__init__(in_features, out_features, bias)
        self.group_size = group_size
        self.kept: tuple[tuple[Tensor, ...], tuple[int, ...], Tensor, Tensor] | None = None
        half = {"dtype": torch.bfloat16, "device": "meta"}
        self.register_buffer("codes", torch.empty(out_features, in_features // 2, dtype=torch.uint8, device="meta"))
        for name in ("scales", "zeros"):
            self.register_buffer(name, torch.empty(out_features, in_features // group_size, **half))
        self.register_buffer("input_scales", torch.empty(in_features, **half) if awq else None)

    def fill(self, packed: Tensor, scales_and_zeros: Tensor, input_scales: Tensor | None) -> None:
        """Take the codes of a weight that torch has packed for this CPU.

        Args:
            packed: by `torch.ops.aten._convert_weight_to_int4pack_for_cpu`.
            scales_and_zeros: of shape `groups out 2`, in bf16.
            input_scales: factors of the inputs.
        """
        unit = torch.zeros_like(scales_and_zeros)
        unit[..., 0] = 1
        # The product with the identity is the weight, exact in bf16; with scales of 1 it is the codes less 8.
        identity = torch.eye(self.in_features, dtype=torch.bfloat16)
        codes = (_multiply(identity, packed, self.group_size, unit).T + 8).to(torch.uint8)
        self.codes = codes[:, ::2] | codes[:, 1::2] << 4
        self.scales, self.zeros = (part.T.contiguous() for part in scales_and_zeros.unbind(2))
        self.input_scales = input_scales

    def unpacked(self) -> UInt8[Tensor, "out in"]:
        """Return the codes, one a byte."""
        return torch.stack([self.codes & 15, self.codes >> 4], dim=2).flatten(1)

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """Weight in fp32 that the codes stand for, computed at every access."""
        groups = self.unpacked().unflatten(1, (-1, self.group_size)).float() - 8
        weight = (groups * self.scales.float()[:, :, None] + self.zeros.float()[:, :, None]).flatten(1)
        return weight if self.input_scales is None else weight * self.input_scales.float()

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        """Compute x W^T + b."""
        has_graph = torch.is_grad_enabled() and x.requires_grad
        if has_graph or x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        rows = x if self.input_scales is None else x * self.input_scales.to(x.dtype)
        rows = rows.reshape(-1, self.in_features).to(torch.bfloat16).contiguous()
        y = _multiply(rows, *self.packed()).to(x.dtype).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def packed(self) -> tuple[Tensor, int, Tensor]:
        """Return the codes packed for this CPU, the size of a group, and scales and zero points.

        They are packed anew whenever the buffers were written to or replaced.
        """
        tensors = (self.codes, self.scales, self.zeros)
        signature = tuple(fact for x in tensors for fact in (x.data_ptr(), 0 if x.is_inference() else x._version))
        kept = self.kept  # read once: another thread may replace it
        # An address alone says little: a new tensor may have that of one that was freed.
        if kept is None or kept[1] != signature or any(map(is_not, kept[0], tensors)):
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(self.unpacked().int(), 1)
            both = torch.stack([self.scales.T, self.zeros.T], dim=2).to(torch.bfloat16).contiguous()
            kept = self.kept = tensors, signature, packed, both
        return kept[2], self.group_size, kept[3]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the packed codes out of copies and pickles."""
        return {**self.__dict__, "kept": None}


def _multiply(x: Tensor, packed: Tensor, group_size: int, scales_and_zeros: Tensor) -> Tensor:
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group_size, scales_and_zeros)
