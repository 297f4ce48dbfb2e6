"""Calls of the native code (elementwise.cpp): one pass over memory each way."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.native import build
from ..common.native.tensors import TensorRef, tensor_ref, unreadable_reason

SOURCE = Path(__file__).parent / "native" / "elementwise.cpp"


def unavailable_reason(*inputs: Tensor | float | None) -> str | None:
    """Return why this backend cannot run on the inputs of an operator, or None. The first call builds."""
    return unreadable_reason(*inputs) or build.unavailable_reason(SOURCE)


def lerp_unavailable_reason(*inputs: Tensor | None) -> str | None:
    """Return why `lerp` cannot run here, or None. The last input, `starts`, is boolean and not checked."""
    return unavailable_reason(*inputs[:4])


def fields(**kinds: str) -> tuple:
    """Names and types of a structure: `fields(tensor="x gate", pointer="weight", size="n")`."""
    types = {"tensor": TensorRef, "pointer": ctypes.c_void_p, "size": ctypes.c_int64, "real": ctypes.c_double}
    return tuple((name, types[kind.rstrip("_")]) for kind, names in kinds.items() for name in names.split())


class Lerp(ctypes.Structure):
    """Arguments of `mmrnn_lerp_forward` and `mmrnn_lerp_backward`."""

    _fields_ = fields(
        tensor="x previous offsets",
        pointer="out grads",
        tensor_="dx dprevious doffsets",
        pointer_="weights dweights starts",
        size="n rows d length",
    )


class Norm(ctypes.Structure):
    """Arguments of `mmrnn_norm_forward` and `mmrnn_norm_backward`."""

    _fields_ = fields(
        tensor="x gate out grad dx dgate", pointer="weight bias dparameters", size="rows heads width", real="eps"
    )


class Pointwise(ctypes.Structure):
    """Arguments of the operators on single numbers, `mmrnn_square_*` and `mmrnn_gate_*`."""

    _fields_ = fields(tensor="a b out grad da db", size="size")


def call(name: str, arguments: ctypes.Structure) -> None:
    """Call a native function.

    Raises:
        MemoryError: there is no memory for the sums over rows.
    """
    function = build.native_function(SOURCE, name, ctypes.c_void_p, ctypes.c_int)
    if function(ctypes.addressof(arguments), torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for sums over the rows")


def tensor_array(tensors: Sequence[Tensor | None]) -> ctypes.Array:
    """Describe several tensors one after the other."""
    return (TensorRef * len(tensors))(*map(tensor_ref, tensors))
