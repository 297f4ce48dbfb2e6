"""Elementwise operators between the matrix products of RWKV. README.md has the mathematics.

Every operator computes in fp32 and returns the type of its first input, or of its gate. `backend` is `auto`, `triton`
(on a GPU), `cpu` (native code, built on first use) or `reference`; `chunked`, a backend of the WKV operators, is the
reference. On a CPU `auto` takes the reference for few tokens too, where the call costs more than the pass, and
everywhere inside `torch.func` transforms and forward-mode AD; the other backends refuse those, and second derivatives.

All raise TypeError if an input is no tensor or of a type that the operators do not take, ValueError if sizes do not
agree or the backend is unknown, and RuntimeError if the backend that was asked for cannot run on these inputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..common.checks import check_dtypes, check_shapes, present
from ..dispatch import Operator
from . import cpu, cpu_gates, cpu_lerp, reference, triton

__all__ = ["lerp", "norm_gate", "relu_square", "sigmoid_gate", "token_shift"]

MIN_NATIVE_ELEMENTS = 8192
"""Elements from which on `auto` takes the native code on a CPU."""


def resolve_backend(backend: str, x: Tensor) -> str:
    """Replace `auto` by `reference` for a small CPU tensor."""
    is_small = x.device.type == "cpu" and x.numel() < MIN_NATIVE_ELEMENTS
    return "reference" if backend == "auto" and is_small else backend


def operator(
    name: str,
    fused: Callable[..., Any],
    native: Callable[..., Any],
    formula: Callable[..., Any],
    triton_unavailable: Callable[..., str | None] = triton.unavailable_reason,
    cpu_unavailable: Callable[..., str | None] = cpu.unavailable_reason,
) -> Operator:
    """Make an operator of its three implementations."""
    implementations = {"triton": fused, "cpu": native, "reference": formula, "chunked": formula}
    return Operator(name, implementations, {"triton": triton_unavailable, "cpu": cpu_unavailable})


LERP = operator(
    "lerp",
    triton.lerp,
    cpu_lerp.lerp,
    reference.lerp,
    triton.lerp_unavailable_reason,
    cpu.lerp_unavailable_reason,
)
RELU_SQUARE = operator("relu_square", triton.relu_square, cpu_gates.relu_square, reference.relu_square)
SIGMOID_GATE = operator("sigmoid_gate", triton.sigmoid_gate, cpu_gates.sigmoid_gate, reference.sigmoid_gate)
NORM_GATE = operator(
    "norm_gate", triton.norm_gate, cpu_gates.norm_gate, reference.norm_gate, triton.norm_gate_unavailable_reason
)


def token_shift(
    x: Float[Tensor, "b t d"], last: Float[Tensor, "b d"], starts: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, "b t d"]:
    """Return the token before each token: `last` before the first one, zero where a segment starts.

    Raises:
        TypeError: an input is no tensor or of another type.
        ValueError: sizes do not agree.
    """
    check_dtypes("token_shift", x=x, last=last)
    check_dtypes("token_shift", (torch.bool,), **present(starts=starts))
    check_shapes("token_shift", x=("b t d", x), last=("b d", last), starts=("b t", starts))
    return reference.token_shift(x, last, starts)


def lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b *t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None = None,
    *,
    starts: Bool[Tensor, "b t"] | None = None,
    backend: str = "auto",
) -> list[Float[Tensor, "b t d"]]:
    """Compute the n mixtures `x + (previous - x) * (weights[i] + offsets[i])`.

    Args:
        previous: token before every position, or (`b d`) before the first one: then the others have their neighbour in
            x.
        starts: True where a segment of a packed row starts: there `previous` is zero. Only for `b d`.

    Raises:
        TypeError: an input is no tensor or of another type.
        ValueError: sizes do not agree, the backend is unknown, or `starts` is given with `previous` of every position.
        RuntimeError: the backend that was asked for cannot run on these inputs.
    """
    check_dtypes("lerp", x=x, previous=previous, weights=weights, **present(offsets=offsets))
    check_dtypes("lerp", (torch.bool,), **present(starts=starts))
    every = previous.dim() == 3
    check_shapes(
        "lerp",
        x=("b t d", x),
        previous=("b t d" if every else "b d", previous),
        weights=("n d", weights),
        offsets=("n b t d", offsets),
        starts=("b t", starts),
    )
    if every and starts is not None:
        raise ValueError(
            f"lerp: starts needs previous to be [b d], got {list(previous.shape)}; set previous to zero there instead"
        )
    starts = None if starts is None else starts.to(x.device)
    return LERP(resolve_backend(backend, x), x, previous, weights, offsets, starts)


def relu_square(x: Float[Tensor, "b t c"], *, backend: str = "auto") -> Float[Tensor, "b t c"]:
    """Compute `relu(x)^2`.

    Raises:
        TypeError: an input is no tensor or of another type.
        ValueError: the backend is unknown, or x is empty.
        RuntimeError: the backend that was asked for cannot run on these inputs.
    """
    check_dtypes("relu_square", x=x)
    check_shapes("relu_square", x=("b t c", x))
    return RELU_SQUARE(resolve_backend(backend, x), x)


def sigmoid_gate(
    gate: Float[Tensor, "b t d"], x: Float[Tensor, "b t d"], *, backend: str = "auto"
) -> Float[Tensor, "b t d"]:
    """Compute `sigmoid(gate) * x`.

    Raises:
        TypeError: an input is no tensor or of another type.
        ValueError: sizes do not agree, or the backend is unknown.
        RuntimeError: the backend that was asked for cannot run on these inputs.
    """
    check_dtypes("sigmoid_gate", gate=gate, x=x)
    check_shapes("sigmoid_gate", gate=("b t d", gate), x=("b t d", x))
    return SIGMOID_GATE(resolve_backend(backend, x), gate, x)


def norm_gate(
    x: Float[Tensor, "b t h v"],
    gate: Float[Tensor, "b t c"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
    *,
    backend: str = "auto",
) -> Float[Tensor, "b t c"]:
    """Normalise every head, then compute `(weight * x + bias) * silu(gate)`; c = h v.

    Args:
        eps: added to the variance.

    Raises:
        TypeError: an input is no tensor or of another type.
        ValueError: sizes do not agree, or the backend is unknown.
        RuntimeError: the backend that was asked for cannot run on these inputs.
    """
    check_dtypes("norm_gate", x=x, gate=gate, weight=weight, bias=bias)
    check_shapes("norm_gate", x=("b t h v", x))
    check_shapes("norm_gate", x=("b t c", x.flatten(2)), gate=("b t c", gate), weight=("c", weight), bias=("c", bias))
    return NORM_GATE(resolve_backend(backend, x), x, gate, weight, bias, eps)
