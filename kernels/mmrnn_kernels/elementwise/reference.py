"""Formulas of the operators, in the types that PyTorch gives them. README.md has the gradients."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ..common.dtypes import accumulation_dtype


def token_shift(
    x: Float[Tensor, "b t d"], last: Float[Tensor, "b d"], starts: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, "b t d"]:
    """Return the token before each token: `last` before the first one, zero where a segment starts."""
    previous = torch.cat([last[:, None].to(x.dtype), x[:, :-1]], dim=1)
    return previous if starts is None else previous.masked_fill(starts[..., None], 0)


def lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b *t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None = None,
    starts: Bool[Tensor, "b t"] | None = None,
) -> list[Float[Tensor, "b t d"]]:
    """Compute the mixtures (1) of README.md."""
    delta = (token_shift(x, previous, starts) if previous.dim() == 2 else previous) - x
    if offsets is None:
        return [torch.addcmul(x, delta, weight.to(x.dtype)) for weight in weights]
    # One mixture at a time: all of them together would not fit into the cache of a processor.
    pairs = zip(weights, offsets, strict=True)
    return [torch.addcmul(x, delta, (weight + offset).to(x.dtype)) for weight, offset in pairs]


def relu_square(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Compute `relu(x)^2`."""
    return F.relu(x).square()


def sigmoid_gate(gate: Float[Tensor, "*s"], x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Compute `sigmoid(gate) * x`."""
    return torch.sigmoid(gate) * x


def norm_gate(
    x: Float[Tensor, "b t h v"],
    gate: Float[Tensor, "b t c"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
) -> Float[Tensor, "b t c"]:
    """Normalise every head, then scale, shift and gate with silu, (6) of README.md."""
    b, t, heads, size = x.shape
    kinds = {x.dtype, weight.dtype, bias.dtype}
    on_cpu = x.device.type == "cpu" and weight.dtype == bias.dtype == torch.float32 and x.dtype != torch.float64
    if len(kinds) > 1 and not on_cpu:  # torch has the norm of these mixtures alone
        dtype = accumulation_dtype(x, weight, bias)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    # Not that of torch.nn.functional, which refuses a head of one value for the sake of training.
    normed = torch.group_norm(x.reshape(b * t, heads * size), heads, weight, bias, eps)
    return (normed.view(gate.shape) * F.silu(gate)).to(gate.dtype)
