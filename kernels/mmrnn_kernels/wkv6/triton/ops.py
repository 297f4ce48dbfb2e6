"""The kernels as operators of torch: differentiable, traceable, and with nothing saved but the inputs."""

import torch
from torch import Tensor

from ...inputs import remember
from ...rows import single
from . import chunks, plan, stream
from .sequences import Sequences


@torch.library.custom_op("mmrnn::wkv6_triton", mutates_args=())
def forward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None, bounds: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The output and the final states."""
    sequences, mode = Sequences("wkv", r, v, bounds), plan.mode(r, k, v)
    inputs = [x.contiguous() for x in (r, k, v, w, u)]
    out, end = torch.empty_like(inputs[2]), sequences.states(r)
    with torch.cuda.device_of(r):
        if sequences.longest <= plan.SHORT or plan.streams(sequences.key, mode):
            stream.run(sequences, mode, *inputs, single(state), out, end)
        else:
            chunks.forward(sequences, mode, *inputs, single(state), out, end)
    return out, end


@torch.library.custom_op("mmrnn::wkv6_triton_backward", mutates_args=())
def backward(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    state: Tensor | None,
    bounds: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of r, k, v, w, u and the first states (empty where there are none)."""
    sequences, mode = Sequences("wkv", r, v, bounds), plan.mode(r, k, v)
    dout = torch.zeros_like(v) if dout is None else dout.to(v.dtype)
    inputs = [x.contiguous() for x in (r, k, v, w, u)]
    rest = (single(state), dout.contiguous(), single(dend))
    with torch.cuda.device_of(r):
        if plan.streams(sequences.key, mode):
            dr, dk, dv, dw, du, dstart = stream.backward(sequences, mode, *inputs, *rest)
        else:
            dr, dk, dv, dw, du, dstart = chunks.backward(sequences, mode, *inputs, *rest)
    # Where there are no positions every sequence, or piece of one, has its own.
    dw = dw.sum(0).to(w.dtype) if w.dim() == 2 else dw
    first = r.new_empty(0) if state is None else dstart.to(state.dtype)
    return dr, dk, dv, dw, du.sum(0).to(u.dtype), first


@forward.register_fake
def _(*inputs):
    r, _, v, _, u, _, bounds = inputs
    count = len(r) if bounds is None else len(bounds) - 1
    return v.new_empty(v.shape), r.new_empty((count, *u.shape, v.shape[-1]), dtype=torch.float32)


@backward.register_fake
def _(*inputs):
    r, state = inputs[0], inputs[5]
    first = r.new_empty(0) if state is None else state.new_empty(state.shape)
    return *(x.new_empty(x.shape) for x in inputs[:5]), first


def differentiate(ctx, dout: Tensor | None, dend: Tensor | None):
    inputs = ctx.saved_tensors  # asked for once: a checkpoint hands them out only once
    *grads, dstate = backward(*inputs, dout, dend)
    return *grads, None if inputs[5] is None else dstate, None


forward.register_autograd(differentiate, setup_context=remember)


@torch.library.custom_op("mmrnn::wkv6_triton_step", mutates_args=("state",))
def advance(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> Tensor:
    """The output of one position (`b h k`); `state` moves on."""
    constant = w.dim() == 2
    rows = [x.unsqueeze(1).contiguous() for x in (r, k, v)]
    w = (w if constant else w.unsqueeze(1)).contiguous()
    out = torch.empty_like(rows[2])
    with torch.cuda.device_of(r):
        stream.run(
            Sequences("wkv", rows[0], rows[2], None), plan.mode(r, k, v), *rows, w, u.contiguous(), state, out, state
        )
    return out.squeeze(1)


@advance.register_fake
def _(*inputs):
    return inputs[2].new_empty(inputs[2].shape)
