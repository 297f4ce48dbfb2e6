"""Activations and gates as operators of torch."""

import torch
import triton
from torch import Tensor

from .. import traced
from . import plan
from .flat import gate_backward, gate_forward, square_backward, square_forward
from .norm import norm_backward, norm_forward


def run(kernel, *tensors: Tensor) -> None:
    """A kernel that takes numbers one by one."""
    size = tensors[0].numel()
    with torch.cuda.device_of(tensors[0]):
        kernel[(triton.cdiv(size, plan.FLAT),)](*tensors, size, B=plan.FLAT, num_warps=plan.WARPS)


@torch.library.custom_op("mmrnn::relu_square_triton", mutates_args=())
def relu_square(x: Tensor) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    run(square_forward, x, out)
    return out


@torch.library.custom_op("mmrnn::relu_square_triton_backward", mutates_args=())
def relu_square_backward(x: Tensor, grad: Tensor) -> Tensor:
    x = x.contiguous()
    dx = torch.empty_like(x)
    run(square_backward, x, grad.contiguous(), dx)
    return dx


@torch.library.custom_op("mmrnn::sigmoid_gate_triton", mutates_args=())
def sigmoid_gate(gate: Tensor, x: Tensor) -> Tensor:
    gate, x = gate.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    run(gate_forward, gate, x, out)
    return out


@torch.library.custom_op("mmrnn::sigmoid_gate_triton_backward", mutates_args=())
def sigmoid_gate_backward(gate: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    gate, x = gate.contiguous(), x.contiguous()
    dgate, dx = torch.empty_like(gate), torch.empty_like(x)
    run(gate_backward, gate, x, grad.contiguous(), dgate, dx)
    return dgate, dx


class Sizes:
    """The programs that positions and heads are cut into, and what every kernel is told about them."""

    def __init__(self, x: Tensor):
        heads, size = x.shape[-2:]
        self.rows = x.numel() // (heads * size)
        self.positions = plan.positions(self.rows)
        some, room = plan.heads(heads, size)
        self.blocks = triton.cdiv(self.rows, self.positions)
        self.grid = (self.blocks, triton.cdiv(heads, some))
        self.known = {"H": heads, "V": size, "BH": some, "BV": room, "B": self.positions}
        self.known |= {"num_warps": plan.WARPS, "num_stages": 1}


@torch.library.custom_op("mmrnn::norm_gate_triton", mutates_args=())
def norm_gate(x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    sizes, inputs = Sizes(x), [y.contiguous() for y in (x, gate, weight, bias)]
    out = torch.empty_like(inputs[1])
    with torch.cuda.device_of(x):
        norm_forward[sizes.grid](*inputs, out, eps, sizes.rows, **sizes.known)
    return out


@torch.library.custom_op("mmrnn::norm_gate_triton_backward", mutates_args=())
def norm_gate_backward(
    x: Tensor, gate: Tensor, weight: Tensor, bias: Tensor, eps: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes, inputs = Sizes(x), [y.contiguous() for y in (x, gate, weight, bias)]
    dx, dgate = (torch.empty_like(y) for y in inputs[:2])
    shares = x.new_empty((sizes.blocks, 2, len(weight)), dtype=torch.float32)
    with torch.cuda.device_of(x):
        norm_backward[sizes.grid](*(*inputs, grad.contiguous(), dx, dgate, shares, eps, sizes.rows), **sizes.known)
    dweight, dbias = shares.sum(0)
    return dx, dgate, dweight.to(weight.dtype, copy=True), dbias.to(bias.dtype, copy=True)


traced.relu_square(relu_square, relu_square_backward)
traced.sigmoid_gate(sigmoid_gate, sigmoid_gate_backward)
traced.norm_gate(norm_gate, norm_gate_backward)
