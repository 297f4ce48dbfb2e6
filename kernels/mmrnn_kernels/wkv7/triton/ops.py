"""The kernels as custom ops of torch: differentiable, traceable, and with nothing saved but the inputs."""

import torch
from torch import Tensor

from ...common.autograd import register_recurrence
from ...common.dtypes import contiguous_fp32
from ...common.triton.plan import MAX_RECURRENT_LENGTH
from ...common.triton.sequences import Sequences
from . import chunk_launch, plan, recurrent_launch


@torch.library.custom_op("mmrnn::wkv7_triton", mutates_args=())
def forward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final states."""
    sequences, mode = Sequences("wkv7", r, v, cu_seqlens), plan.compile_mode(r, k, v, a, b)
    inputs = [x.contiguous() for x in (r, w, k, v, a, b)]
    out, end = torch.empty_like(inputs[3]), sequences.empty_states(r)
    is_recurrent = sequences.longest <= MAX_RECURRENT_LENGTH or plan.is_recurrent(sequences.key, mode)
    launch = recurrent_launch if is_recurrent else chunk_launch
    with torch.cuda.device_of(r):
        launch.forward(sequences, mode, inputs, contiguous_fp32(state), out, end)
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
    cu_seqlens: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, w, k, v, a, b and the initial states (empty if there are none)."""
    sequences, mode = Sequences("wkv7", r, v, cu_seqlens), plan.compile_mode(r, k, v, a, b)
    dout = torch.zeros_like(v) if dout is None else dout.to(v.dtype)
    inputs = [x.contiguous() for x in (r, w, k, v, a, b)]
    rest = (contiguous_fp32(state), dout.contiguous(), contiguous_fp32(dend))
    launch = recurrent_launch if plan.is_recurrent(sequences.key, mode) else chunk_launch
    with torch.cuda.device_of(r):
        grads, dstart = launch.backward(sequences, mode, inputs, *rest)
    return *grads, r.new_empty(0) if state is None else dstart.to(state.dtype)


register_recurrence(forward, backward, value=3, state=6)
