"""WKV-6 on the CPU in native code (wkv6.cpp): the recurrence position by position. README.md has the mathematics."""

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

SOURCE = Path(__file__).parent / "native" / "wkv6.cpp"


def unavailable_reason(*inputs: Tensor | Segments | None) -> str | None:
    """Return why this backend cannot run on the inputs of the operator, or None. The first call builds."""
    return unreadable_reason(*inputs[:6]) or build.unavailable_reason(SOURCE)


def wkv6_cpu(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "*time h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Compute the result of `wkv6_reference`. A `w` of `h k` is one decay for all positions. Differentiable once."""
    return forward(r, k, v, w, u, state)


class Forward(ctypes.Structure):
    """Arguments of `mmrnn_wkv6_forward`."""

    _fields_ = (*view_fields("r k v w"), *pointer_fields("u start"), *tensor_fields("out"), *pointer_fields("end"))


class Backward(ctypes.Structure):
    """Arguments of `mmrnn_wkv6_backward`."""

    _fields_ = (
        *view_fields("r k v w dout"),
        *pointer_fields("u start dend"),
        *tensor_fields("dr dk dv dw"),
        *pointer_fields("du dstart"),
        ("constant", ctypes.c_int64),
    )


@torch.library.custom_op("mmrnn::wkv6_cpu", mutates_args=(), device_types="cpu")
def forward(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state."""
    out, end = empty_like(v), empty_final_state(r, v)
    timed = [contiguous_rows(x) for x in (r, k, v, w)]
    constants = [contiguous_fp32(x) for x in (u, state)]
    arguments = Forward(*map(view, timed), *map(pointer, constants), tensor_ref(out), pointer(end))
    call_wkv(SOURCE, "mmrnn_wkv6_forward", arguments, r, v)
    return out.to(v.dtype), end


@torch.library.custom_op("mmrnn::wkv6_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    state: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, k, v, w, u and the initial state (empty if there is none)."""
    constant = w.dim() == 2
    grads = [empty_like(r), empty_like(k), empty_like(v), empty_like(w, torch.float32 if constant else None)]
    du, dstart = empty_like(u, torch.float32), None if state is None else empty_like(state, torch.float32)
    timed = [contiguous_rows(x) for x in (r, k, v, w, dout)]
    constants = [contiguous_fp32(x) for x in (u, state, dend)]
    outputs = (*map(tensor_ref, grads), pointer(du), pointer(dstart), constant)
    call_wkv(SOURCE, "mmrnn_wkv6_backward", Backward(*map(view, timed), *map(pointer, constants), *outputs), r, v)
    converted = [grad.to(x.dtype) for grad, x in zip((*grads, du), (r, k, v, w, u), strict=True)]
    return *converted, r.new_empty(0) if dstart is None else dstart.to(state.dtype)


register_recurrence(forward, backward, value=2, state=5)
