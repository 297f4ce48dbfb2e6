"""The elementwise neighbours of the matrix products in RWKV. The maths is in README.md.

Every operator computes in fp32 and answers in the type of its first input, or of its gate. `backend` is the word that
chooses the WKV operator, too: `auto`, `triton` (on a GPU), `cpu` (native code, built on first use) or `reference`.
There are no chunks here, so `chunked` is the reference. On a CPU `auto` takes it for a few tokens, too, where a call
costs more than a pass.

All raise ValueError for sizes that do not agree and an unknown backend, and RuntimeError where the backend that was
asked for cannot run on these inputs.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from ..dispatch import Op
from ..inputs import agree
from . import cpu, gates, reference, triton
from .lerp import lerp as native_lerp
from .reference import token_shift

__all__ = ["lerp", "norm_gate", "relu_square", "sigmoid_gate", "token_shift"]

FEW = 8192  # numbers


def chosen(backend: str, x: Tensor) -> str:
    few = x.device.type == "cpu" and x.numel() < FEW
    return "reference" if backend == "auto" and few else backend


def op(name: str, fused, native, plain, no_triton=triton.blocked, no_cpu=cpu.blocked) -> Op:
    impls = {"triton": fused, "cpu": native, "reference": plain, "chunked": plain}
    return Op(name, impls, {"triton": no_triton, "cpu": no_cpu})


LERP = op("lerp", triton.lerp, native_lerp, reference.lerp, triton.lerp_blocked, cpu.lerp_blocked)
RELU_SQUARE = op("relu_square", triton.relu_square, gates.relu_square, reference.relu_square)
SIGMOID_GATE = op("sigmoid_gate", triton.sigmoid_gate, gates.sigmoid_gate, reference.sigmoid_gate)
NORM_GATE = op("norm_gate", triton.norm_gate, gates.norm_gate, reference.norm_gate, triton.norm_blocked)


def lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b *t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None = None,
    *,
    starts: Bool[Tensor, "b t"] | None = None,
    backend: str = "auto",
) -> list[Float[Tensor, "b t d"]]:
    """The n mixtures `x + (previous - x) * (weights[i] + offsets[i])`.

    Args:
        previous: what came before every position, or (`b d`) before the first one: then that of the others is their
            neighbour in x.
        starts: True where a segment of a packed row starts, which nothing comes before: zero. Only for `b d`.
    """
    every = previous.dim() == 3
    agree(
        "lerp",
        x=("b t d", x),
        previous=("b t d" if every else "b d", previous),
        weights=("n d", weights),
        offsets=("n b t d", offsets),
        starts=("b t", starts),
    )
    if every and starts is not None:
        raise ValueError(f"lerp: starts need previous to be [b d], got {list(previous.shape)}, which tells it already")
    starts = None if starts is None else starts.to(x.device)
    return LERP(chosen(backend, x), x, previous, weights, offsets, starts)


def relu_square(x: Float[Tensor, "b t c"], *, backend: str = "auto") -> Float[Tensor, "b t c"]:
    """`relu(x)^2`."""
    agree("relu_square", x=("b t c", x))
    return RELU_SQUARE(chosen(backend, x), x)


def sigmoid_gate(
    gate: Float[Tensor, "b t d"], x: Float[Tensor, "b t d"], *, backend: str = "auto"
) -> Float[Tensor, "b t d"]:
    """`sigmoid(gate) * x`."""
    agree("sigmoid_gate", gate=("b t d", gate), x=("b t d", x))
    return SIGMOID_GATE(chosen(backend, x), gate, x)


def norm_gate(
    x: Float[Tensor, "b t h v"],
    gate: Float[Tensor, "b t c"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
    *,
    backend: str = "auto",
) -> Float[Tensor, "b t c"]:
    """Every head normalised, then `(weight * x + bias) * silu(gate)`, with the channels c of all heads in a row.

    Args:
        eps: added to the variance.
    """
    agree("norm_gate", x=("b t c", x.flatten(2)), gate=("b t c", gate), weight=("c", weight), bias=("c", bias))
    return NORM_GATE(chosen(backend, x), x, gate, weight, bias, eps)
