"""WKV-7 on the CPU in native code (wkv7.cpp): the recurrence position by position. README.md has the mathematics."""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.autograd import register_recurrence
from ..common.dtypes import contiguous_fp32
from ..common.native import build
from ..common.native.tensors import empty_like, pointer, tensor_ref, unreadable_reason
from ..common.native.wkv import (
    call_wkv,
    contiguous_rows,
    empty_final_state,
    pointer_fields,
    tensor_fields,
    view,
    view_fields,
)
from ..common.segments import Segments

SOURCE = Path(__file__).parent / "native" / "wkv7.cpp"


def unavailable_reason(*inputs: Tensor | Segments | None) -> str | None:
    """Return why this backend cannot run on the inputs of the operator, or None. The first call builds."""
    return unreadable_reason(*inputs[:7]) or build.unavailable_reason(SOURCE)


def wkv7_cpu(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Compute the result of `wkv7_reference`. Differentiable once."""
    return forward(r, w, k, v, a, b, state)


class Forward(ctypes.Structure):
    """Arguments of `mmrnn_wkv7_forward`."""

    _fields_ = (*view_fields("r w k v a b"), *pointer_fields("start"), *tensor_fields("out"), *pointer_fields("end"))


class Backward(ctypes.Structure):
    """Arguments of `mmrnn_wkv7_backward`."""

    _fields_ = (
        *view_fields("r w k v a b dout"),
        *pointer_fields("start dend"),
        *tensor_fields("dr dw dk dv da db"),
        *pointer_fields("dstart"),
    )


@torch.library.custom_op("mmrnn::wkv7_cpu", mutates_args=(), device_types="cpu")
def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state."""
    out, end = empty_like(v), empty_final_state(r, v)
    timed, start = [contiguous_rows(x) for x in (r, w, k, v, a, b)], contiguous_fp32(state)
    arguments = Forward(*map(view, timed), pointer(start), tensor_ref(out), pointer(end))
    call_wkv(SOURCE, "mmrnn_wkv7_forward", arguments, r, v)
    return out.to(v.dtype), end


@torch.library.custom_op("mmrnn::wkv7_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, w, k, v, a, b and the initial state (empty if there is none)."""
    inputs = (r, w, k, v, a, b)
    grads = [empty_like(x) for x in inputs]
    dstart = None if state is None else empty_like(state, torch.float32)
    timed, ends = [contiguous_rows(x) for x in (*inputs, dout)], [contiguous_fp32(x) for x in (state, dend)]
    arguments = Backward(*map(view, timed), *map(pointer, ends), *map(tensor_ref, grads), pointer(dstart))
    call_wkv(SOURCE, "mmrnn_wkv7_backward", arguments, r, v)
    converted = [grad.to(x.dtype) for grad, x in zip(grads, inputs, strict=True)]
    return *converted, r.new_empty(0) if dstart is None else dstart.to(state.dtype)


register_recurrence(forward, backward, value=3, state=6)
