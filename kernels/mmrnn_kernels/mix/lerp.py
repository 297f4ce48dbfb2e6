"""All mixtures of a token and the one before in one pass, by native code."""

import ctypes

import torch
from torch import Tensor

from ..inputs import remember
from ..rows import flat, new, rows, single
from .cpu import Lerp, call, like, table


@torch.library.custom_op("mmrnn::lerp_cpu", mutates_args=(), device_types="cpu")
def lerp(x: Tensor, previous: Tensor, weights: Tensor, offsets: Tensor | None) -> list[Tensor]:
    inputs, static = [flat(y) for y in (x, previous, offsets)], single(weights)
    out = [new(x) for _ in weights]
    outs = table(out)
    job = Lerp(*map(rows, inputs), ctypes.addressof(outs), weights=static.data_ptr(), **sizes(x, weights))
    call("mmrnn_lerp_forward", job)
    return [y.to(x.dtype) for y in out]


@torch.library.custom_op("mmrnn::lerp_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    x: Tensor, previous: Tensor, weights: Tensor, offsets: Tensor | None, grads: list[Tensor | None]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of all inputs; empty where there are no offsets."""
    inputs, static = [flat(y) for y in (x, previous, offsets)], single(weights)
    grads = [flat(y) for y in grads]
    found = [new(y) for y in (x, previous) if y is not None]
    found += [x.new_empty(0) if offsets is None else new(offsets)]
    dweights, given = torch.empty_like(static), table(grads)
    job = Lerp(*map(rows, inputs), 0, ctypes.addressof(given), *map(rows, found), static.data_ptr())
    job.dweights = dweights.data_ptr()
    for name, size in sizes(x, weights).items():
        setattr(job, name, size)
    call("mmrnn_lerp_backward", job)
    dx, dprevious, doffsets = found
    last = doffsets if offsets is None else doffsets.to(offsets.dtype)
    return dx.to(x.dtype), dprevious.to(previous.dtype), dweights.to(weights.dtype), last


def sizes(x: Tensor, weights: Tensor) -> dict[str, int]:
    n, d = weights.shape
    return {"n": n, "rows": x.numel() // d, "d": d}


@lerp.register_fake
def _(x, previous, weights, offsets):  # noqa: ARG001
    return [x.new_empty(x.shape) for _ in range(len(weights))]


@backward.register_fake
def _(x, previous, weights, offsets, grads):  # noqa: ARG001
    return *like(x, previous, weights), x.new_empty(0) if offsets is None else offsets.new_empty(offsets.shape)


def differentiate(ctx, grads):
    inputs = ctx.saved_tensors
    *found, doffsets = backward(*inputs, list(grads))
    return *found, None if inputs[3] is None else doffsets


lerp.register_autograd(differentiate, setup_context=remember)
