"""Activations and gates on the CPU, one native pass each way. Differentiable once."""

import torch
from torch import Tensor

from ..common.dtypes import contiguous_fp32
from ..common.native.tensors import contiguous, empty_like, tensor_ref
from .autograd import register_norm_gate, register_relu_square, register_sigmoid_gate
from .cpu import Norm, Pointwise, call


@torch.library.custom_op("mmrnn::relu_square_cpu", mutates_args=(), device_types="cpu")
def relu_square(x: Tensor) -> Tensor:
    """Compute `relu(x)^2`."""
    a, out = contiguous(x), empty_like(x)
    call("mmrnn_square_forward", Pointwise(a=tensor_ref(a), out=tensor_ref(out), size=x.numel()))
    return out.to(x.dtype)


@torch.library.custom_op("mmrnn::relu_square_cpu_backward", mutates_args=(), device_types="cpu")
def relu_square_backward(x: Tensor, grad: Tensor) -> Tensor:
    """Compute the gradient of x."""
    a, dy, da = contiguous(x), contiguous(grad), empty_like(x)
    call("mmrnn_square_backward", Pointwise(a=tensor_ref(a), grad=tensor_ref(dy), da=tensor_ref(da), size=x.numel()))
    return da.to(x.dtype)


@torch.library.custom_op("mmrnn::sigmoid_gate_cpu", mutates_args=(), device_types="cpu")
def sigmoid_gate(gate: Tensor, x: Tensor) -> Tensor:
    """Compute `sigmoid(gate) * x`."""
    a, b, out = contiguous(gate), contiguous(x), empty_like(x)
    call("mmrnn_gate_forward", Pointwise(a=tensor_ref(a), b=tensor_ref(b), out=tensor_ref(out), size=x.numel()))
    return out.to(x.dtype)


@torch.library.custom_op("mmrnn::sigmoid_gate_cpu_backward", mutates_args=(), device_types="cpu")
def sigmoid_gate_backward(gate: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of gate and x."""
    a, b, dy, da, db = contiguous(gate), contiguous(x), contiguous(grad), empty_like(gate), empty_like(x)
    refs = {name: tensor_ref(y) for name, y in {"a": a, "b": b, "grad": dy, "da": da, "db": db}.items()}
    call("mmrnn_gate_backward", Pointwise(**refs, size=x.numel()))
    return da.to(gate.dtype), db.to(x.dtype)


@torch.library.custom_op("mmrnn::norm_gate_cpu", mutates_args=(), device_types="cpu")
def norm_gate(x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise every head, scale, shift and gate."""
    inputs, parameters = (contiguous(x), contiguous(gate)), (contiguous_fp32(weight), contiguous_fp32(bias))
    out = empty_like(gate)
    call("mmrnn_norm_forward", norm_arguments(x, inputs, parameters, eps, out=tensor_ref(out)))
    return out.to(gate.dtype)


@torch.library.custom_op("mmrnn::norm_gate_cpu_backward", mutates_args=(), device_types="cpu")
def norm_gate_backward(
    x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, gate, weight and bias."""
    inputs, parameters = (contiguous(x), contiguous(gate)), (contiguous_fp32(weight), contiguous_fp32(bias))
    dy, dx, dgate = contiguous(grad), empty_like(x), empty_like(gate)
    dparameters = parameters[0].new_empty(2, len(weight))
    outputs = {"grad": tensor_ref(dy), "dx": tensor_ref(dx), "dgate": tensor_ref(dgate)}
    outputs["dparameters"] = dparameters.data_ptr()
    call("mmrnn_norm_backward", norm_arguments(x, inputs, parameters, eps, **outputs))
    dweight, dbias = dparameters[0].to(weight.dtype, copy=True), dparameters[1].to(bias.dtype, copy=True)
    return dx.to(x.dtype), dgate.to(gate.dtype), dweight, dbias


def norm_arguments(
    x: Tensor, inputs: tuple[Tensor, ...], parameters: tuple[Tensor, ...], eps: float, **outputs
) -> Norm:
    """Fill the arguments of a call with contiguous x and gate, weight and bias, and the tensors of this pass."""
    weight, bias = (y.data_ptr() for y in parameters)
    heads, width = x.shape[-2:]
    arguments = Norm(*map(tensor_ref, inputs), weight=weight, bias=bias, eps=eps, **outputs)
    arguments.rows, arguments.heads, arguments.width = x.numel() // (heads * width), heads, width
    return arguments


register_relu_square(relu_square, relu_square_backward)
register_sigmoid_gate(sigmoid_gate, sigmoid_gate_backward)
register_norm_gate(norm_gate, norm_gate_backward)
