"""`lerp` as a custom op of torch, which saves nothing but its inputs."""

import torch
import triton
from torch import Tensor

from ..autograd import register_lerp
from . import plan
from .lerp_kernels import lerp_backward_kernel, lerp_forward_kernel
from .limits import MAX_MIXTURES


class Launch:
    """Grid and constants of a call."""

    def __init__(self, x: Tensor, previous: Tensor, weights: Tensor):
        samples, self.length, _ = x.shape
        n, d = weights.shape
        positions, channels = plan.positions(self.length), plan.channels(d, x.dtype)
        self.blocks = samples * triton.cdiv(self.length, positions)
        self.grid = (self.blocks, triton.cdiv(d, channels))
        self.constants = {"N": n, "D": d, "BD": channels, "BT": positions, "SHIFT": previous.dim() == 2}
        self.constants |= {"num_warps": plan.WARPS, "num_stages": 1}


def pad_mixtures(tensors: list[Tensor]) -> list[Tensor | None]:
    """Fill a list up to the number of arguments that the kernels have."""
    return tensors + [None] * (MAX_MIXTURES - len(tensors))


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    """Make tensors contiguous; None stays None."""
    return [None if x is None else x.contiguous() for x in tensors]


@torch.library.custom_op("mmrnn::lerp_triton", mutates_args=())
def forward(
    x: Tensor, previous: Tensor, weights: Tensor, offsets: Tensor | None, starts: Tensor | None
) -> list[Tensor]:
    """Compute the mixtures."""
    launch, inputs = Launch(x, previous, weights), contiguous(x, previous, weights, offsets, starts)
    out = [torch.empty_like(inputs[0]) for _ in weights]
    with torch.cuda.device_of(x):
        lerp_forward_kernel[launch.grid](*inputs, *pad_mixtures(out), launch.length, **launch.constants)
    return out


@torch.library.custom_op("mmrnn::lerp_triton_backward", mutates_args=())
def backward(
    x: Tensor,
    previous: Tensor,
    weights: Tensor,
    offsets: Tensor | None,
    starts: Tensor | None,
    grads: list[Tensor | None],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, previous, weights and offsets (empty if there are none)."""
    launch, inputs = Launch(x, previous, weights), contiguous(x, previous, weights, offsets, starts)
    dy = [torch.zeros_like(inputs[0]) if y is None else y.contiguous() for y in grads]
    dx, dprevious, _, doffsets = (None if y is None else torch.empty_like(y) for y in inputs[:4])
    partial_sums = x.new_empty((launch.blocks, *weights.shape), dtype=torch.float32)
    outputs = (dx, dprevious, doffsets, partial_sums)
    with torch.cuda.device_of(x):
        lerp_backward_kernel[launch.grid](*inputs, *pad_mixtures(dy), *outputs, launch.length, **launch.constants)
    return dx, dprevious, partial_sums.sum(0).to(weights.dtype), x.new_empty(0) if doffsets is None else doffsets


register_lerp(forward, backward)
