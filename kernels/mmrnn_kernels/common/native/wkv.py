"""Calls of the native WKV functions (`wkv6.cpp`, `wkv7.cpp`): their structures and their arguments."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from .build import native_function
from .tensors import TensorRef, tensor_ref


class View(ctypes.Structure):
    """An input `b t h c` with its strides: `View` of memory.h."""

    _fields_ = (("tensor", TensorRef), *((name, ctypes.c_int64) for name in ("batch", "time", "head")))


class Sizes(ctypes.Structure):
    """Sizes of a call: `Sizes` of memory.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("batch", "length", "heads", "key", "value"))


def view_fields(names: str) -> tuple:
    """Fields of a structure for inputs with strides, named in `names` with spaces between."""
    return tuple((name, View) for name in names.split())


def tensor_fields(names: str) -> tuple:
    """Fields of a structure for contiguous tensors."""
    return tuple((name, TensorRef) for name in names.split())


def pointer_fields(names: str) -> tuple:
    """Fields of a structure for contiguous fp32 tensors."""
    return tuple((name, ctypes.c_void_p) for name in names.split())


def call_wkv(source: Path, name: str, arguments: ctypes.Structure, r: Tensor, v: Tensor) -> None:
    """Call a function of a source with its structure of arguments.

    Raises:
        MemoryError: there is no memory for the states.
    """
    sizes = Sizes(*r.shape, v.shape[-1])
    function = native_function(source, name, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    if function(ctypes.addressof(arguments), ctypes.addressof(sizes), torch.get_num_threads()):
        raise MemoryError(f"no memory for the states of r {list(r.shape)} [b t h k] with v {list(v.shape)} [b t h v]")


def contiguous_rows(x: Tensor | None) -> Tensor | None:
    """Convert to fp32 or bf16 with a last stride of one; the other strides stay as they are."""
    if x is None:
        return None
    x = x.float() if x.dtype == torch.float16 else x
    return x if x.stride(-1) == 1 else x.contiguous()


def view(x: Tensor | None) -> View:
    """Describe an input `b t h c`, or `h c` with the same row at every position."""
    if x is None:
        return View()
    return View(tensor_ref(x), *(x.stride()[:3] if x.dim() == 4 else (0, 0, x.stride(0))))


def empty_final_state(r: Tensor, v: Tensor) -> Tensor:
    """Memory for the final state, `b h k v` in fp32."""
    batch, _, heads, key = r.shape
    return r.new_empty(batch, heads, key, v.shape[-1], dtype=torch.float32)
