"""WKV-7 on the CPU by native code (native/): the recurrence itself, position by position. README.md has the maths."""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..inputs import remember
from ..native import obstacle
from ..rows import new, rows, single, unreadable
from ..wkv6.cpu import call, lined, new_state, pointer, pointers, tensors, view, views

SOURCE = Path(__file__).parent / "native" / "wkv7.cpp"


def blocked(*inputs: Tensor | None) -> str | None:
    """Why this cannot run on the inputs of the operator, or None. The first to ask waits for the compiler."""
    return unreadable(*inputs[:7]) or obstacle(SOURCE)


def cpu(
    r: Float[Tensor, "b t h k"],
    w: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """The same as `reference`. Differentiable once."""
    return forward(r, w, k, v, a, b, state)


class Forward(ctypes.Structure):
    _fields_ = (*views("r w k v a b"), *pointers("start"), *tensors("out"), *pointers("end"))


class Backward(ctypes.Structure):
    _fields_ = (*views("r w k v a b dout"), *pointers("start dend"), *tensors("dr dw dk dv da db"), *pointers("dstart"))


@torch.library.custom_op("mmrnn::wkv7_cpu", mutates_args=(), device_types="cpu")
def forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The output and the final state."""
    out, end = new(v), new_state(r, v)
    inputs, start = [lined(x) for x in (r, w, k, v, a, b)], single(state)
    call(SOURCE, "mmrnn_wkv7_forward", Forward(*map(view, inputs), pointer(start), rows(out), pointer(end)), r, v)
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
    """Gradients of r, w, k, v, a, b and the first state (empty where there is none)."""
    inputs = (r, w, k, v, a, b)
    grads = [new(x) for x in inputs]
    first = None if state is None else new(state, torch.float32)
    given, ends = [lined(x) for x in (*inputs, dout)], [single(x) for x in (state, dend)]
    job = Backward(*map(view, given), *map(pointer, ends), *map(rows, grads), pointer(first))
    call(SOURCE, "mmrnn_wkv7_backward", job, r, v)
    found = [grad.to(x.dtype) for grad, x in zip(grads, inputs, strict=True)]
    return *found, r.new_empty(0) if first is None else first.to(state.dtype)


@forward.register_fake
def _(*inputs):
    r, v = inputs[0], inputs[3]
    return v.new_empty(v.shape), new_state(r, v)


@backward.register_fake
def _(*inputs):
    r, state = inputs[0], inputs[6]
    first = r.new_empty(0) if state is None else state.new_empty(state.shape)
    return *(x.new_empty(x.shape) for x in inputs[:6]), first


def differentiate(ctx, dout: Tensor | None, dend: Tensor | None):
    inputs = ctx.saved_tensors  # asked for once: a checkpoint hands them out only once
    *grads, dstate = backward(*inputs, dout, dend)
    return *grads, None if inputs[6] is None else dstate


forward.register_autograd(differentiate, setup_context=remember)
