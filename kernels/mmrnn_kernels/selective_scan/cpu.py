"""The selective scan on the CPU in native code (selective_scan.cpp). README.md has the mathematics."""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.autograd import register_recurrence
from ..common.dtypes import contiguous_fp32
from ..common.native import build
from ..common.native.build import native_function
from ..common.native.tensors import empty_like, pointer, tensor_ref, unreadable_reason
from ..common.native.wkv import Sizes, View, contiguous_rows, pointer_fields, tensor_fields, view_fields
from ..common.segments import Segments

SOURCE = Path(__file__).parent / "native" / "selective_scan.cpp"

WIDTH = 64
"""Channels of a block, which one thread computes."""

CHANNELS = (("channels", ctypes.c_int64),)


def unavailable_reason(*inputs: Tensor | Segments | None) -> str | None:
    """Return why this backend cannot run on the inputs of the operator, or None. The first call builds."""
    return unreadable_reason(*inputs[:6]) or build.unavailable_reason(SOURCE)


def selective_scan_cpu(
    x: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    a: Float[Tensor, "d s"],
    b: Float[Tensor, "b t s"],
    c: Float[Tensor, "b t s"],
    state: Float[Tensor, "b d s"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d s"]]:
    """Compute the result of `selective_scan_reference`. Differentiable once."""
    return forward(x, dt, a, b, c, state)


class Forward(ctypes.Structure):
    """Arguments of `mmrnn_selective_scan_forward`."""

    _fields_ = (
        *view_fields("x dt b c"),
        *pointer_fields("a start"),
        *tensor_fields("out"),
        *pointer_fields("end"),
        *CHANNELS,
    )


class Backward(ctypes.Structure):
    """Arguments of `mmrnn_selective_scan_backward`."""

    _fields_ = (
        *view_fields("x dt b c dout"),
        *pointer_fields("a start dend"),
        *tensor_fields("dx ddt"),
        *pointer_fields("da db dc dstart"),
        *CHANNELS,
    )


def view(x: Tensor | None, block: int) -> View:
    """Describe an input `b t c` of which a block of channels reads from `block` times its number on."""
    return View() if x is None else View(tensor_ref(x), x.stride(0), x.stride(1), block)


def call(name: str, arguments: ctypes.Structure, x: Tensor, b: Tensor) -> None:
    """Call a native function.

    Raises:
        MemoryError: there is no memory for the states.
    """
    batch, length, channels = x.shape
    sizes = Sizes(batch, length, blocks(channels), b.shape[-1], WIDTH)
    function = native_function(SOURCE, name, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    if function(ctypes.addressof(arguments), ctypes.addressof(sizes), torch.get_num_threads()):
        raise MemoryError(f"no memory for the states of x {list(x.shape)} [b t d] with b {list(b.shape)} [b t s]")


def blocks(channels: int) -> int:
    """Return the number of blocks of channels."""
    return -(-channels // WIDTH)


@torch.library.custom_op("mmrnn::selective_scan_cpu", mutates_args=(), device_types="cpu")
def forward(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state."""
    out, end = empty_like(x), x.new_empty(len(x), *a.shape, dtype=torch.float32)
    timed, (rates, start) = [contiguous_rows(one) for one in (x, dt, b, c)], map(contiguous_fp32, (a, state))
    views = [view(one, block) for one, block in zip(timed, (WIDTH, WIDTH, 0, 0), strict=True)]
    arguments = Forward(*views, pointer(rates), pointer(start), tensor_ref(out), pointer(end), x.shape[-1])
    call("mmrnn_selective_scan_forward", arguments, x, b)
    return out.to(x.dtype), end


@torch.library.custom_op("mmrnn::selective_scan_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, dt, a, b, c and the initial state (empty if there is none)."""
    dx, ddt = empty_like(x), empty_like(dt)
    da = x.new_empty(len(x), *a.shape, dtype=torch.float32)
    db, dc = (x.new_empty(blocks(x.shape[-1]), *b.shape, dtype=torch.float32) for _ in range(2))
    dstart = None if state is None else empty_like(state, torch.float32)
    timed = [contiguous_rows(one) for one in (x, dt, b, c, dout)]
    constants = [contiguous_fp32(one) for one in (a, state, dend)]
    views = [view(one, block) for one, block in zip(timed, (WIDTH, WIDTH, 0, 0, WIDTH), strict=True)]
    outputs = (tensor_ref(dx), tensor_ref(ddt), *map(pointer, (da, db, dc, dstart)))
    call("mmrnn_selective_scan_backward", Backward(*views, *map(pointer, constants), *outputs, x.shape[-1]), x, b)
    summed = (dx, ddt, da.sum(0), db.sum(0), dc.sum(0))
    converted = [grad.to(one.dtype) for grad, one in zip(summed, (x, dt, a, b, c), strict=True)]
    return *converted, x.new_empty(0) if dstart is None else dstart.to(state.dtype)


register_recurrence(forward, backward, value=0, state=5, size=3)
