"""The kernels as operators of torch: differentiable, traceable, and with nothing saved but the inputs."""

import torch
from torch import Tensor

from ...inputs import remember
from ...rows import single
from ...wkv6.triton.sequences import Sequences
from . import chunks, plan, stream


@torch.library.custom_op("mmrnn::wkv7_triton", mutates_args=())
def forward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None,
    bounds: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The output and the final states."""
    sequences, mode = Sequences("wkv7", r, v, bounds), plan.mode(r, k, v, a, b)
    inputs = [x.contiguous() for x in (r, w, k, v, a, b)]
    out, end = torch.empty_like(inputs[3]), sequences.states(r)
    with torch.cuda.device_of(r):
        if sequences.longest <= plan.SHORT or plan.streams(sequences.key, mode):
            stream.run(sequences, mode, inputs, single(state), out, None, end, None)
        else:
            chunks.run(sequences, mode, inputs, single(state), out, None, end)
    return out, end


@torch.library.custom_op("mmrnn::wkv7_triton_backward", mutates_args=())
def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None,
    bounds: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of r, w, k, v, a, b and the first states (empty where there are none)."""
    sequences, mode = Sequences("wkv7", r, v, bounds), plan.mode(r, k, v, a, b)
    dout = torch.zeros_like(v) if dout is None else dout.to(v.dtype)
    inputs = [x.contiguous() for x in (r, w, k, v, a, b)]
    rest = (single(state), dout.contiguous(), single(dend))
    with torch.cuda.device_of(r):
        if plan.streams(sequences.key, mode):
            grads, dstart = stream.backward(sequences, mode, inputs, *rest)
        else:
            grads, dstart = chunks.backward(sequences, mode, inputs, *rest)
    return *grads, r.new_empty(0) if state is None else dstart.to(state.dtype)


@forward.register_fake
def _(*inputs):
    r, v, bounds = inputs[0], inputs[3], inputs[7]
    count = len(r) if bounds is None else len(bounds) - 1
    return v.new_empty(v.shape), r.new_empty((count, *r.shape[2:], v.shape[-1]), dtype=torch.float32)


@backward.register_fake
def _(*inputs):
    r, state = inputs[0], inputs[6]
    first = r.new_empty(0) if state is None else state.new_empty(state.shape)
    return *(x.new_empty(x.shape) for x in inputs[:6]), first


def differentiate(ctx, dout: Tensor | None, dend: Tensor | None):
    inputs = ctx.saved_tensors  # asked for once: a checkpoint hands them out only once
    *grads, dstate = backward(*inputs, dout, dend)
    return *grads, None if inputs[6] is None else dstate, None


forward.register_autograd(differentiate, setup_context=remember)
