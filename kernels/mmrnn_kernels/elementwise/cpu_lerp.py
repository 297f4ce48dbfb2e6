"""All mixtures of every token and the one before on the CPU, one native pass each way. Differentiable once."""

import ctypes

import torch
from torch import Tensor

from ..common.dtypes import contiguous_fp32
from ..common.native.tensors import contiguous, empty_like, pointer, tensor_ref
from .autograd import register_lerp
from .cpu import Lerp, call, tensor_array


@torch.library.custom_op("mmrnn::lerp_cpu", mutates_args=(), device_types="cpu")
def lerp(x: Tensor, previous: Tensor, weights: Tensor, offsets: Tensor | None, starts: Tensor | None) -> list[Tensor]:
    """Compute the mixtures."""
    inputs, mu = [contiguous(y) for y in (x, previous, offsets, starts)], contiguous_fp32(weights)
    out = [empty_like(x) for _ in weights]
    out_array = tensor_array(out)
    call("mmrnn_lerp_forward", lerp_arguments(*inputs, mu, out=ctypes.addressof(out_array)))
    return [y.to(x.dtype) for y in out]


@torch.library.custom_op("mmrnn::lerp_cpu_backward", mutates_args=(), device_types="cpu")
def lerp_backward(
    x: Tensor,
    previous: Tensor,
    weights: Tensor,
    offsets: Tensor | None,
    starts: Tensor | None,
    grads: list[Tensor | None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, previous, weights and offsets (empty if there are none)."""
    inputs, mu = [contiguous(y) for y in (x, previous, offsets, starts)], contiguous_fp32(weights)
    grads = [contiguous(y) for y in grads]
    grad_array = tensor_array(grads)
    dx, dprevious, doffsets = empty_like(x), empty_like(previous), None if offsets is None else empty_like(offsets)
    dweights = torch.empty_like(mu)
    outputs = {"dx": tensor_ref(dx), "dprevious": tensor_ref(dprevious), "doffsets": tensor_ref(doffsets)}
    outputs |= {"dweights": pointer(dweights), "grads": ctypes.addressof(grad_array)}
    call("mmrnn_lerp_backward", lerp_arguments(*inputs, mu, **outputs))
    last = x.new_empty(0) if offsets is None else doffsets.to(offsets.dtype)
    return dx.to(x.dtype), dprevious.to(previous.dtype), dweights.to(weights.dtype), last


def lerp_arguments(
    x: Tensor, previous: Tensor, offsets: Tensor | None, starts: Tensor | None, weights: Tensor, **outputs
) -> Lerp:
    """Fill the arguments of a call with contiguous inputs and the tensors of this pass."""
    n, d = weights.shape
    return Lerp(
        *map(tensor_ref, (x, previous, offsets)),
        weights=pointer(weights),
        starts=pointer(starts),
        n=n,
        rows=x.numel() // d,
        d=d,
        length=x.shape[1] if previous.dim() == 2 else 0,  # where `previous` is one row a sample
        **outputs,
    )


register_lerp(lerp, lerp_backward)
