"""WKV-7 on the CPU in native code (wkv7.cpp): the recurrence position by position. README.md has the mathematics."""

import ctypes
from collections.abc import Sequence
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

    _fields_ = (
        *view_fields("r w k v a b"),
        *pointer_fields("start"),
        *tensor_fields("out"),
        *pointer_fields("end"),
        ("logarithms", ctypes.c_int64),
    )


class Backward(ctypes.Structure):
    """Arguments of `mmrnn_wkv7_backward`."""

    _fields_ = (
        *view_fields("r w k v a b dout"),
        *pointer_fields("start dend"),
        *tensor_fields("dr dw dk dv da db"),
        *pointer_fields("dstart"),
        ("logarithms", ctypes.c_int64),
    )


def run_forward(inputs: Sequence[Tensor], state: Tensor | None, *, logarithms: bool = False) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state of r, w, k, v, a, b.

    Args:
        logarithms: w are the logarithms of the decays.
    """
    r, v = inputs[0], inputs[3]
    out, end = empty_like(v), empty_final_state(r, v)
    timed, start = [contiguous_rows(x) for x in inputs], contiguous_fp32(state)
    arguments = Forward(*map(view, timed), pointer(start), tensor_ref(out), pointer(end), logarithms)
    call_wkv(SOURCE, "mmrnn_wkv7_forward", arguments, r, v)
    return out.to(v.dtype), end


def run_backward(
    inputs: Sequence[Tensor],
    state: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
    *,
    logarithms: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, w, k, v, a, b and the initial state (empty if there is none)."""
    r, v = inputs[0], inputs[3]
    grads = [empty_like(x) for x in inputs]
    dstart = None if state is None else empty_like(state, torch.float32)
    timed, ends = [contiguous_rows(x) for x in (*inputs, dout)], [contiguous_fp32(x) for x in (state, dend)]
    found = (*map(tensor_ref, grads), pointer(dstart), logarithms)
    call_wkv(SOURCE, "mmrnn_wkv7_backward", Backward(*map(view, timed), *map(pointer, ends), *found), r, v)
    converted = [grad.to(x.dtype) for grad, x in zip(grads, inputs, strict=True)]
    return *converted, r.new_empty(0) if dstart is None else dstart.to(state.dtype)


@torch.library.custom_op("mmrnn::wkv7_cpu", mutates_args=(), device_types="cpu")
def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state."""
    return run_forward((r, w, k, v, a, b), state)


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
    return run_backward((r, w, k, v, a, b), state, dout, dend)


register_recurrence(forward, backward, value=3, state=6)
