"""Activations and gates in one pass, by native code."""

import torch
from torch import Tensor

from ..rows import flat, new, rows, single
from . import traced
from .cpu import Flat, Norm, call


@torch.library.custom_op("mmrnn::relu_square_cpu", mutates_args=(), device_types="cpu")
def relu_square(x: Tensor) -> Tensor:
    a, out = flat(x), new(x)
    call("mmrnn_square_forward", Flat(a=rows(a), out=rows(out), size=x.numel()))
    return out.to(x.dtype)


@torch.library.custom_op("mmrnn::relu_square_cpu_backward", mutates_args=(), device_types="cpu")
def relu_square_backward(x: Tensor, grad: Tensor) -> Tensor:
    a, given, da = flat(x), flat(grad), new(x)
    call("mmrnn_square_backward", Flat(a=rows(a), grad=rows(given), da=rows(da), size=x.numel()))
    return da.to(x.dtype)


@torch.library.custom_op("mmrnn::sigmoid_gate_cpu", mutates_args=(), device_types="cpu")
def sigmoid_gate(gate: Tensor, x: Tensor) -> Tensor:
    a, b, out = flat(gate), flat(x), new(x)
    call("mmrnn_gate_forward", Flat(a=rows(a), b=rows(b), out=rows(out), size=x.numel()))
    return out.to(x.dtype)


@torch.library.custom_op("mmrnn::sigmoid_gate_cpu_backward", mutates_args=(), device_types="cpu")
def sigmoid_gate_backward(gate: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    a, b, given, da, db = flat(gate), flat(x), flat(grad), new(gate), new(x)
    job = Flat(a=rows(a), b=rows(b), grad=rows(given), da=rows(da), db=rows(db), size=x.numel())
    call("mmrnn_gate_backward", job)
    return da.to(gate.dtype), db.to(x.dtype)


@torch.library.custom_op("mmrnn::norm_gate_cpu", mutates_args=(), device_types="cpu")
def norm_gate(x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    inputs, parameters, out = (flat(x), flat(gate)), (single(weight), single(bias)), new(gate)
    call("mmrnn_norm_forward", norm(x, inputs, parameters, eps, out=rows(out)))
    return out.to(gate.dtype)


@torch.library.custom_op("mmrnn::norm_gate_cpu_backward", mutates_args=(), device_types="cpu")
def norm_gate_backward(
    x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs, parameters, given = (flat(x), flat(gate)), (single(weight), single(bias)), flat(grad)
    dx, dgate, found = new(x), new(gate), parameters[0].new_empty(2, len(weight))
    outputs = {"grad": rows(given), "dx": rows(dx), "dgate": rows(dgate), "dparameters": found.data_ptr()}
    call("mmrnn_norm_backward", norm(x, inputs, parameters, eps, **outputs))
    dweight, dbias = found[0].to(weight.dtype, copy=True), found[1].to(bias.dtype, copy=True)
    return dx.to(x.dtype), dgate.to(gate.dtype), dweight, dbias


def norm(x: Tensor, inputs: tuple[Tensor, ...], parameters: tuple[Tensor, ...], eps: float, **outputs) -> Norm:
    weight, bias = (y.data_ptr() for y in parameters)
    heads, width = x.shape[-2:]
    job = Norm(*map(rows, inputs), weight=weight, bias=bias, eps=eps, **outputs)
    job.rows, job.heads, job.width = x.numel() // (heads * width), heads, width
    return job


traced.relu_square(relu_square, relu_square_backward)
traced.sigmoid_gate(sigmoid_gate, sigmoid_gate_backward)
traced.norm_gate(norm_gate, norm_gate_backward)
