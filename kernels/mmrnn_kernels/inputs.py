"""What every operator asks of its inputs."""

from functools import reduce

import torch
from torch import Tensor


def agree(op: str, **tensors: tuple[str, Tensor | None]) -> None:
    """Check that sizes of the same letter are the same: `agree("wkv6", r=("b t h k", r), u=("h k", u))`.

    Raises:
        ValueError: with both tensors, their shapes and the letter they differ in.
    """
    seen: dict[str, tuple[int, str, list[int]]] = {}
    for name, (letters, tensor) in tensors.items():
        if tensor is None:
            continue
        shape, axes = list(tensor.shape), letters.split()
        if len(shape) != len(axes):
            raise ValueError(f"{op}: {name} must be [{letters}], got {shape}")
        for letter, size in zip(axes, shape, strict=True):
            expected, first, other = seen.setdefault(letter, (size, name, shape))
            if size != expected:
                raise ValueError(
                    f"{op}: {letter} is {expected} in {first} {other} but {size} in {name} {shape}; "
                    f"{name} must be [{letters}]"
                )
        if 0 in shape:
            raise ValueError(f"{op}: {name} {shape} is empty; every axis of [{letters}] needs at least one entry")


def remember(ctx, inputs, **_) -> None:
    """What the gradient of an operator needs: its tensors. Gradients of outputs that nobody used stay None."""
    ctx.save_for_backward(*(x for x in inputs if x is None or isinstance(x, Tensor)))
    ctx.set_materialize_grads(False)


def accumulator(*tensors: Tensor | None) -> torch.dtype:
    """The type that states and sums are kept in: fp32, or fp64 as soon as one input is fp64."""
    dtypes = [tensor.dtype for tensor in tensors if tensor is not None]
    return reduce(torch.promote_types, dtypes, torch.float32)
