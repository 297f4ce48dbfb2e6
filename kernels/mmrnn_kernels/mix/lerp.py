"""All mixtures of a token and the one before in one pass, by native code."""

import ctypes

import torch
from torch import Tensor

from ..rows import flat, new, rows, single
from . import traced
from .cpu import Lerp, call, table


@torch.library.custom_op("mmrnn::lerp_cpu", mutates_args=(), device_types="cpu")
def lerp(x: Tensor, previous: Tensor, weights: Tensor, offsets: Tensor | None, starts: Tensor | None) -> list[Tensor]:
    inputs, static, places = [flat(y) for y in (x, previous, offsets)], single(weights), flat(starts)
    out = [new(x) for _ in weights]
    outs = table(out)
    sizes = described(x, previous, weights, places)
    call("mmrnn_lerp_forward", Lerp(*map(rows, inputs), ctypes.addressof(outs), weights=static.data_ptr(), **sizes))
    return [y.to(x.dtype) for y in out]


@torch.library.custom_op("mmrnn::lerp_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    x: Tensor,
    previous: Tensor,
    weights: Tensor,
    offsets: Tensor | None,
    starts: Tensor | None,
    grads: list[Tensor | None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, previous, weights and offsets; the last empty where there are none."""
    inputs, static, places = [flat(y) for y in (x, previous, offsets)], single(weights), flat(starts)
    grads = [flat(y) for y in grads]
    dx, dprevious, doffsets = new(x), new(previous), None if offsets is None else new(offsets)
    dweights, given = torch.empty_like(static), table(grads)
    found = [rows(y) for y in (dx, dprevious, doffsets)]
    job = Lerp(*map(rows, inputs), 0, ctypes.addressof(given), *found, static.data_ptr(), dweights.data_ptr())
    for name, value in described(x, previous, weights, places).items():
        setattr(job, name, value)
    call("mmrnn_lerp_backward", job)
    last = x.new_empty(0) if offsets is None else doffsets.to(offsets.dtype)
    return dx.to(x.dtype), dprevious.to(previous.dtype), dweights.to(weights.dtype), last


def described(x: Tensor, previous: Tensor, weights: Tensor, starts: Tensor | None) -> dict[str, int | None]:
    """Sizes, and where segments start; a length where `previous` is one row a sample."""
    n, d = weights.shape
    sizes = {"n": n, "rows": x.numel() // d, "d": d, "length": x.shape[1] if previous.dim() == 2 else 0}
    return sizes | {"starts": None if starts is None else starts.data_ptr()}


traced.lerp(lerp, backward)
