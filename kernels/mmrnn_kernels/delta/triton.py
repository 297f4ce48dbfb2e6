"""The gated delta rule on a GPU: the kernels of WKV-7, which take heads whose keys and values have one size."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ..common.segments import Segments
from ..common.triton.availability import unavailable_reason as triton_unavailable_reason
from ..wkv7.triton import HEAD_SIZES, wkv7_triton


def unavailable_reason(*inputs: Tensor | Segments | None) -> str | None:
    """Return why this backend cannot run on the inputs of the operator, or None."""
    key, value = inputs[0].shape[-1], inputs[2].shape[-1]
    if reason := triton_unavailable_reason(inputs[:6]):
        return reason
    if key not in HEAD_SIZES or value % key:
        sizes = ", ".join(map(str, HEAD_SIZES))
        return f"keys must have one of the sizes {sizes} and values a multiple of it, got {key} and {value}"
    return None


class PreActivation(torch.autograd.Function):
    """w = log(-g), the pre-activation of WKV-7, for a log-decay g <= 0.

    At g = 0 the logarithm has no value: there w is so small that the decay is one in the type of w, and still a number,
    so that the gradient of g, which is that of w times -exp(-w), is not lost.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, g: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Compute w."""
        w = torch.log((-g).clamp(min=torch.finfo(g.dtype).eps ** 2))
        ctx.save_for_backward(w)
        return w

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dw: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Compute the gradient of g; the exponential of the rounded w, which WKV-7 multiplied by, cancels."""
        return -dw * torch.exp(-ctx.saved_tensors[0])


def log_wkv7_triton(
    r: Float[Tensor, "b t h k"],
    g: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "n h k v"] | None,
    cu_seqlens: Segments | Tensor | None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "n h k v"]]:
    """Compute WKV-7 with the decay exp(g). Differentiable once.

    Where values are a multiple as wide as keys, the columns of the state, which are independent, are split.
    """
    size, w = k.shape[-1], PreActivation.apply(g)
    states = [None] * (v.shape[-1] // size) if state is None else state.split(size, -1)
    values = v.split(size, -1)
    found = [wkv7_triton(r, w, k, x, a, b, s, cu_seqlens) for x, s in zip(values, states, strict=True)]
    if len(found) == 1:
        return found[0]
    out, end = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
    return out, end
