"""Activations and gates as custom ops of torch, which save nothing but their inputs."""

import torch
import triton
from torch import Tensor

from ..autograd import register_norm_gate, register_relu_square, register_sigmoid_gate
from . import plan
from .norm_kernels import norm_backward_kernel, norm_forward_kernel
from .pointwise_kernels import (
    gate_backward_kernel,
    gate_forward_kernel,
    square_backward_kernel,
    square_forward_kernel,
)


def launch_pointwise(kernel, *tensors: Tensor) -> None:
    """Launch a kernel over all elements of contiguous tensors of one shape."""
    size = tensors[0].numel()
    with torch.cuda.device_of(tensors[0]):
        kernel[(triton.cdiv(size, plan.POINTWISE_BLOCK),)](*tensors, size, B=plan.POINTWISE_BLOCK, num_warps=plan.WARPS)


@torch.library.custom_op("mmrnn::relu_square_triton", mutates_args=())
def relu_square(x: Tensor) -> Tensor:
    """Compute `relu(x)^2`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    launch_pointwise(square_forward_kernel, x, out)
    return out


@torch.library.custom_op("mmrnn::relu_square_triton_backward", mutates_args=())
def relu_square_backward(x: Tensor, grad: Tensor) -> Tensor:
    """Compute the gradient of x."""
    x = x.contiguous()
    dx = torch.empty_like(x)
    launch_pointwise(square_backward_kernel, x, grad.contiguous(), dx)
    return dx


@torch.library.custom_op("mmrnn::sigmoid_gate_triton", mutates_args=())
def sigmoid_gate(gate: Tensor, x: Tensor) -> Tensor:
    """Compute `sigmoid(gate) * x`."""
    gate, x = gate.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    launch_pointwise(gate_forward_kernel, gate, x, out)
    return out


@torch.library.custom_op("mmrnn::sigmoid_gate_triton_backward", mutates_args=())
def sigmoid_gate_backward(gate: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of gate and x."""
    gate, x = gate.contiguous(), x.contiguous()
    dgate, dx = torch.empty_like(gate), torch.empty_like(x)
    launch_pointwise(gate_backward_kernel, gate, x, grad.contiguous(), dgate, dx)
    return dgate, dx


class NormLaunch:
    """Grid and constants of a call of `norm_gate`."""

    def __init__(self, x: Tensor):
        heads, size = x.shape[-2:]
        self.rows = x.numel() // (heads * size)
        positions = plan.positions(self.rows)
        block_heads, block_values = plan.heads(heads, size)
        self.blocks = triton.cdiv(self.rows, positions)
        self.grid = (self.blocks, triton.cdiv(heads, block_heads))
        self.constants = {"H": heads, "V": size, "BH": block_heads, "BV": block_values, "BT": positions}
        self.constants |= {"num_warps": plan.WARPS, "num_stages": 1}


@torch.library.custom_op("mmrnn::norm_gate_triton", mutates_args=())
def norm_gate(x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise every head, scale, shift and gate."""
    launch, inputs = NormLaunch(x), [y.contiguous() for y in (x, gate, weight, bias)]
    out = torch.empty_like(inputs[1])
    with torch.cuda.device_of(x):
        norm_forward_kernel[launch.grid](*inputs, out, eps, launch.rows, **launch.constants)
    return out


@torch.library.custom_op("mmrnn::norm_gate_triton_backward", mutates_args=())
def norm_gate_backward(
    x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, gate, weight and bias."""
    launch, inputs = NormLaunch(x), [y.contiguous() for y in (x, gate, weight, bias)]
    dx, dgate = (torch.empty_like(y) for y in inputs[:2])
    partial_sums = x.new_empty((launch.blocks, 2, len(weight)), dtype=torch.float32)
    outputs = (dx, dgate, partial_sums)
    with torch.cuda.device_of(x):
        norm_backward_kernel[launch.grid](*inputs, grad.contiguous(), *outputs, eps, launch.rows, **launch.constants)
    dweight, dbias = partial_sums.sum(0)
    return dx, dgate, dweight.to(weight.dtype, copy=True), dbias.to(bias.dtype, copy=True)


register_relu_square(relu_square, relu_square_backward)
register_sigmoid_gate(sigmoid_gate, sigmoid_gate_backward)
register_norm_gate(norm_gate, norm_gate_backward)
