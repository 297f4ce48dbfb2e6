"""Checks of the inputs of an operator."""

import torch
from torch import Tensor

from .dtypes import DTYPES

INDEX_DTYPES = (torch.int32, torch.int64)


def check_dtypes(op: str, dtypes: tuple[torch.dtype, ...] = DTYPES, /, **inputs: object) -> None:
    """Check that all inputs are tensors of one of these types.

    Raises:
        TypeError: one is not.
    """
    for name, x in inputs.items():
        if isinstance(x, Tensor) and x.dtype in dtypes:
            continue
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        if isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} must be {wanted}, got {x.dtype}; convert it with .to({dtypes[0]})")
        raise TypeError(f"{op}: {name} must be a tensor of {wanted}, got {type(x).__name__}")


def present(**inputs: object) -> dict[str, object]:
    """Return the inputs that are given."""
    return {name: x for name, x in inputs.items() if x is not None}


def check_shapes(op: str, **tensors: tuple[str, Tensor | None]) -> None:
    """Check that axes of the same letter have the same size: `check_shapes("wkv6", r=("b t h k", r), u=("h k", u))`.

    Raises:
        ValueError: a number of axes or a size differs, or a tensor is empty.
    """
    sizes: dict[str, tuple[int, str, list[int]]] = {}
    for name, (letters, tensor) in tensors.items():
        if tensor is None:
            continue
        shape, axes = list(tensor.shape), letters.split()
        if len(shape) != len(axes):
            raise ValueError(f"{op}: {name} must be [{letters}], got {shape}")
        for letter, size in zip(axes, shape, strict=True):
            expected, first, first_shape = sizes.setdefault(letter, (size, name, shape))
            if size != expected:
                raise ValueError(
                    f"{op}: {letter} is {expected} in {first} {first_shape} but {size} in {name} {shape}; "
                    f"{name} must be [{letters}]"
                )
        if 0 in shape:
            raise ValueError(f"{op}: {name} {shape} is empty; every axis of [{letters}] needs at least one entry")


def check_state_count(op: str, state: Tensor | None, segments: int) -> None:
    """Check that every segment of a packed row has one state.

    Raises:
        ValueError: there are more or fewer states than segments.
    """
    if state is not None and len(state) != segments:
        raise ValueError(f"{op}: {segments} segments need as many states, got state {list(state.shape)}")
