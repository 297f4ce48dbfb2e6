"""The elementwise neighbours of the matrix products in RWKV-5 and RWKV-6. The maths is in README.md.

Every operator computes in fp32 and answers in the type of its first input, or of its gate. `backend` is the word that
chooses the WKV operator, too: `auto`, `cpu` (native code, built on first use) or `reference`. There are no chunks here
and no Triton kernels yet, so `chunked` and `triton` are the reference. `auto` takes it for a few tokens, too, where a
call costs more than a pass.

All raise ValueError for sizes that do not agree and an unknown backend, and RuntimeError where the backend that was
asked for cannot run on these inputs.
"""

from jaxtyping import Float
from torch import Tensor

from ..dispatch import Op
from ..inputs import agree
from . import gates, reference
from .cpu import blocked
from .lerp import lerp as native_lerp

FEW = 8192  # numbers


def chosen(backend: str, x: Tensor) -> str:
    return "reference" if backend == "auto" and x.numel() < FEW else backend


def op(name: str, native, plain) -> Op:
    return Op(name, {"cpu": native, "reference": plain, "chunked": plain, "triton": plain}, {"cpu": blocked})


LERP = op("lerp", native_lerp, reference.lerp)
RELU_SQUARE = op("relu_square", gates.relu_square, reference.relu_square)
SIGMOID_GATE = op("sigmoid_gate", gates.sigmoid_gate, reference.sigmoid_gate)
NORM_GATE = op("norm_gate", gates.norm_gate, reference.norm_gate)


def lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None = None,
    *,
    backend: str = "auto",
) -> list[Float[Tensor, "b t d"]]:
    """The n mixtures `x + (previous - x) * (weights[i] + offsets[i])`."""
    agree(
        "lerp",
        x=("b t d", x),
        previous=("b t d", previous),
        weights=("n d", weights),
        offsets=("n b t d", offsets),
    )
    return LERP(chosen(backend, x), x, previous, weights, offsets)


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
