"""The kernels as custom ops of torch: differentiable, traceable, and with nothing saved but the inputs."""

import torch
from torch import Tensor

from ...common.autograd import register_recurrence
from ...common.dtypes import contiguous_fp32
from ...common.triton.plan import MAX_RECURRENT_LENGTH, compile_mode
from ...common.triton.sequences import Sequences
from . import chunk_launch, plan, recurrent_launch


@torch.library.custom_op("mmrnn::wkv6_triton", mutates_args=())
def forward(
    r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final states."""
    sequences, mode = Sequences("wkv", r, v, cu_seqlens), compile_mode(r, k, v)
    inputs = [x.contiguous() for x in (r, k, v, w, u)]
    out, end = torch.empty_like(inputs[2]), sequences.empty_states(r)
    is_recurrent = sequences.longest <= MAX_RECURRENT_LENGTH or plan.is_recurrent(sequences.key, mode)
    launch = recurrent_launch if is_recurrent else chunk_launch
    with torch.cuda.device_of(r):
        launch.forward(sequences, mode, *inputs, contiguous_fp32(state), out, end)
    return out, end


@torch.library.custom_op("mmrnn::wkv6_triton_backward", mutates_args=())
def backward(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, k, v, w, u and the initial states (empty if there are none)."""
    sequences, mode = Sequences("wkv", r, v, cu_seqlens), compile_mode(r, k, v)
    dout = torch.zeros_like(v) if dout is None else dout.to(v.dtype)
    inputs = [x.contiguous() for x in (r, k, v, w, u)]
    rest = (contiguous_fp32(state), dout.contiguous(), contiguous_fp32(dend))
    launch = recurrent_launch if plan.is_recurrent(sequences.key, mode) else chunk_launch
    with torch.cuda.device_of(r):
        dr, dk, dv, dw, du, dstart = launch.backward(sequences, mode, *inputs, *rest)
    # One decay for all positions: every sequence, or piece of one, has its own gradient.
    dw = dw.sum(0).to(w.dtype) if w.dim() == 2 else dw
    dstate = r.new_empty(0) if state is None else dstart.to(state.dtype)
    return dr, dk, dv, dw, du.sum(0).to(u.dtype), dstate


register_recurrence(forward, backward, value=2, state=5)


@torch.library.custom_op("mmrnn::wkv6_triton_step", mutates_args=("state",))
def step(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> Tensor:
    """Compute the output of one position (`b h k`) and update `state` in place."""
    rows = [x.unsqueeze(1).contiguous() for x in (r, k, v)]
    w = (w if w.dim() == 2 else w.unsqueeze(1)).contiguous()
    out = torch.empty_like(rows[2])
    sequences = Sequences("wkv", rows[0], rows[2], None)
    with torch.cuda.device_of(r):
        recurrent_launch.forward(sequences, compile_mode(r, k, v), *rows, w, u.contiguous(), state, out, state)
    return out.squeeze(1)


@step.register_fake
def _(*inputs):
    return inputs[2].new_empty(inputs[2].shape)
