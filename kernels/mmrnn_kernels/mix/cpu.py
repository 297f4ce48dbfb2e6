"""The same on the CPU by native code (native/): one pass over memory each way. Differentiable once."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..native import library, obstacle
from ..rows import Rows, rows, unreadable

SOURCE = Path(__file__).parent / "native" / "mix.cpp"


def blocked(*inputs: Tensor | float | None) -> str | None:
    """Why this cannot run on the inputs of an operator, or None. The first to ask waits for the compiler."""
    return unreadable(*inputs) or obstacle(SOURCE)


def lerp_blocked(*inputs: Tensor | None) -> str | None:
    return blocked(*inputs[:4])  # where segments start is no number


def fields(**kinds: str) -> tuple:
    """Names and types of a structure: fields(rows="x gate", data="weight", size="n")."""
    types = {"rows": Rows, "data": ctypes.c_void_p, "size": ctypes.c_int64, "real": ctypes.c_double}
    return tuple((name, types[kind.rstrip("_")]) for kind, names in kinds.items() for name in names.split())


class Lerp(ctypes.Structure):
    _fields_ = fields(
        rows="x previous offsets",
        data="out grads",
        rows_="dx dprevious doffsets",
        data_="weights dweights starts",
        size="n rows d length",
    )


class Norm(ctypes.Structure):
    _fields_ = fields(
        rows="x gate out grad dx dgate", data="weight bias dparameters", size="rows heads width", real="eps"
    )


class Flat(ctypes.Structure):
    _fields_ = fields(rows="a b out grad da db", size="size")


@cache
def function(name: str) -> Callable[..., int]:
    found = getattr(library(SOURCE), name)
    found.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return found


def call(name: str, job: ctypes.Structure) -> None:
    if function(name)(ctypes.addressof(job), torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for sums over the rows")


def table(xs: Sequence[Tensor | None]) -> ctypes.Array:
    return (Rows * len(xs))(*map(rows, xs))
