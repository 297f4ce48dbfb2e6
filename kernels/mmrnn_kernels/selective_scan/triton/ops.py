"""The kernels as custom ops of torch: differentiable, traceable, and with nothing saved but the inputs."""

import torch
from torch import Tensor

from ...common.autograd import register_recurrence
from ...common.dtypes import contiguous_fp32
from ...common.triton.plan import compile_mode
from ...common.triton.sequences import Sequences
from . import launch


def sequences_of(x: Tensor, b: Tensor, cu_seqlens: Tensor | None) -> Sequences:
    """Return the sequences of a call; channels count as heads with one key, their states as its values."""
    return Sequences("selective_scan", x[..., None], b[:, :, None], cu_seqlens)


@torch.library.custom_op("mmrnn::selective_scan_triton", mutates_args=())
def forward(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final states."""
    sequences = sequences_of(x, b, cu_seqlens)
    inputs = [x.contiguous(), dt.contiguous(), contiguous_fp32(a), b.contiguous(), c.contiguous()]
    out, end = torch.empty_like(inputs[0]), x.new_empty(sequences.count, *a.shape, dtype=torch.float32)
    with torch.cuda.device_of(x):
        launch.forward(sequences, compile_mode(x), inputs, contiguous_fp32(state), out, end)
    return out, end


@torch.library.custom_op("mmrnn::selective_scan_triton_backward", mutates_args=())
def backward(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, dt, a, b, c and the initial states (empty if there are none)."""
    sequences = sequences_of(x, b, cu_seqlens)
    inputs = [x.contiguous(), dt.contiguous(), contiguous_fp32(a), b.contiguous(), c.contiguous()]
    dout = torch.zeros_like(x) if dout is None else dout.to(x.dtype)
    rest = (contiguous_fp32(state), dout.contiguous(), contiguous_fp32(dend))
    with torch.cuda.device_of(x):
        grads, dstart = launch.backward(sequences, compile_mode(x), inputs, *rest)
    converted = [grad.to(one.dtype) for grad, one in zip(grads, (x, dt, a, b, c), strict=True)]
    return *converted, x.new_empty(0) if state is None else dstart.to(state.dtype)


register_recurrence(forward, backward, value=0, state=5, size=3)
