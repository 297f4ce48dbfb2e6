"""WKV-6 on the CPU by native code (native/): the recurrence itself, position by position. README.md has the maths."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..inputs import remember
from ..native import library, obstacle
from ..rows import Rows, new, rows, single, unreadable

SOURCE = Path(__file__).parent / "native" / "wkv.cpp"


def blocked(*inputs: Tensor | None) -> str | None:
    """Why this cannot run on the inputs of the operator, or None. The first to ask waits for the compiler."""
    return unreadable(*inputs[:6]) or obstacle(SOURCE)


def cpu(
    r: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    w: Float[Tensor, "*time h k"],
    u: Float[Tensor, "h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """The same as `reference`. A `w` of `h k` is one decay for all positions. Differentiable once."""
    return forward(r, k, v, w, u, state)


class View(ctypes.Structure):
    _fields_ = (("rows", Rows), *((name, ctypes.c_int64) for name in ("batch", "time", "head")))


class Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("batch", "length", "heads", "key", "value"))


def views(names: str) -> tuple:
    return tuple((name, View) for name in names.split())


def tensors(names: str) -> tuple:
    return tuple((name, Rows) for name in names.split())


def pointers(names: str) -> tuple:
    return tuple((name, ctypes.c_void_p) for name in names.split())


class Forward(ctypes.Structure):
    _fields_ = (*views("r k v w"), *pointers("u start"), *tensors("out"), *pointers("end"))


class Backward(ctypes.Structure):
    _fields_ = (
        *views("r k v w dout"),
        *pointers("u start dend"),
        *tensors("dr dk dv dw"),
        *pointers("du dstart"),
        ("constant", ctypes.c_int64),
    )


@cache
def function(source: Path, name: str) -> Callable[..., int]:
    found = getattr(library(source), name)
    found.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    return found


def call(source: Path, name: str, job: ctypes.Structure, r: Tensor, v: Tensor) -> None:
    sizes = Sizes(*r.shape, v.shape[-1])
    if function(source, name)(ctypes.addressof(job), ctypes.addressof(sizes), torch.get_num_threads()):
        raise MemoryError(f"no memory for the states of r {list(r.shape)} [b t h k] with v {list(v.shape)} [b t h v]")


def lined(x: Tensor | None) -> Tensor | None:
    """With the entries of a row side by side, in fp32 or bf16; the other strides may be any."""
    if x is None:
        return None
    x = x.float() if x.dtype == torch.float16 else x
    return x if x.stride(-1) == 1 else x.contiguous()


def view(x: Tensor | None) -> View:
    if x is None:
        return View()
    return View(rows(x), *(x.stride()[:3] if x.dim() == 4 else (0, 0, x.stride(0))))


def pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


@torch.library.custom_op("mmrnn::wkv6_cpu", mutates_args=(), device_types="cpu")
def forward(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The output and the final state."""
    out, end = new(v), new_state(r, v)
    inputs = [lined(x) for x in (r, k, v, w)]
    whole = [single(x) for x in (u, state)]
    job = Forward(*map(view, inputs), *map(pointer, whole), rows(out), pointer(end))
    call(SOURCE, "mmrnn_wkv_forward", job, r, v)
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
    """Gradients of r, k, v, w, u and the first state (empty where there is none)."""
    constant = w.dim() == 2
    grads = [new(r), new(k), new(v), new(w, torch.float32 if constant else None)]
    du, start = new(u, torch.float32), None if state is None else new(state, torch.float32)
    inputs = [lined(x) for x in (r, k, v, w, dout)]
    whole = [single(x) for x in (u, state, dend)]
    ends = (pointer(du), pointer(start), constant)
    call(
        SOURCE, "mmrnn_wkv_backward", Backward(*map(view, inputs), *map(pointer, whole), *map(rows, grads), *ends), r, v
    )
    found = [grad.to(x.dtype) for grad, x in zip((*grads, du), (r, k, v, w, u), strict=True)]
    return *found, r.new_empty(0) if start is None else start.to(state.dtype)


def new_state(r: Tensor, v: Tensor) -> Tensor:
    batch, _, heads, key = r.shape
    return r.new_empty(batch, heads, key, v.shape[-1], dtype=torch.float32)


@forward.register_fake
def _(*inputs):
    r, _, v, *_ = inputs
    return v.new_empty(v.shape), new_state(r, v)


@backward.register_fake
def _(*inputs):
    r, state = inputs[0], inputs[5]
    first = r.new_empty(0) if state is None else state.new_empty(state.shape)
    return *(x.new_empty(x.shape) for x in inputs[:5]), first


def differentiate(ctx, dout: Tensor | None, dend: Tensor | None):
    inputs = ctx.saved_tensors  # asked for once: a checkpoint hands them out only once
    *grads, dstate = backward(*inputs, dout, dend)
    return *grads, None if inputs[5] is None else dstate


forward.register_autograd(differentiate, setup_context=remember)
