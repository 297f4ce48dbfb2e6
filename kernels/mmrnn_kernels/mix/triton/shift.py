"""`lerp` as an operator of torch: differentiable, traceable, and with nothing saved but the inputs."""

import torch
import triton
from torch import Tensor

from .. import traced
from . import MIXTURES, plan
from .mixtures import lerp_backward, lerp_forward


class Sizes:
    """The programs that positions and channels are cut into, and what every kernel is told about them."""

    def __init__(self, x: Tensor, previous: Tensor, weights: Tensor):
        samples, self.length, _ = x.shape
        n, d = weights.shape
        positions, channels = plan.positions(self.length), plan.channels(d, x.dtype)
        self.blocks = samples * triton.cdiv(self.length, positions)
        self.grid = (self.blocks, triton.cdiv(d, channels))
        self.known = {"N": n, "D": d, "BD": channels, "B": positions, "SHIFT": previous.dim() == 2}
        self.known |= {"num_warps": plan.WARPS, "num_stages": 1}


def padded(tensors: list[Tensor]) -> list[Tensor | None]:
    return tensors + [None] * (MIXTURES - len(tensors))


def whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


@torch.library.custom_op("mmrnn::lerp_triton", mutates_args=())
def forward(
    x: Tensor, previous: Tensor, weights: Tensor, offsets: Tensor | None, starts: Tensor | None
) -> list[Tensor]:
    sizes, inputs = Sizes(x, previous, weights), [whole(y) for y in (x, previous, weights, offsets, starts)]
    out = [torch.empty_like(inputs[0]) for _ in weights]
    with torch.cuda.device_of(x):
        lerp_forward[sizes.grid](*inputs, *padded(out), sizes.length, **sizes.known)
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
    """Gradients of x, previous, weights and offsets; the last empty where there are none."""
    sizes, inputs = Sizes(x, previous, weights), [whole(y) for y in (x, previous, weights, offsets, starts)]
    given = [torch.zeros_like(inputs[0]) if y is None else y.contiguous() for y in grads]
    dx, dprevious, _, doffsets = (None if y is None else torch.empty_like(y) for y in inputs[:4])
    shares = x.new_empty((sizes.blocks, *weights.shape), dtype=torch.float32)
    outputs = (dx, dprevious, doffsets, shares)
    with torch.cuda.device_of(x):
        lerp_backward[sizes.grid](*inputs, *padded(given), *outputs, sizes.length, **sizes.known)
    return dx, dprevious, shares.sum(0).to(weights.dtype), x.new_empty(0) if doffsets is None else doffsets


traced.lerp(forward, backward)
