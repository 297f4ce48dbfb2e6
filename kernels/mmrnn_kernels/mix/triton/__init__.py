"""The same on a GPU, in Triton, which is imported by the first call. Differentiable once."""

from jaxtyping import Bool, Float
from torch import Tensor

from ...gpu import unusable

MIXTURES, HEAD = 6, 1024
"""What the kernels are written for at most: mixtures (each has arguments of its own), and numbers of a head."""


def blocked(*inputs: Tensor | float | None) -> str | None:
    """Why this cannot run on the inputs of an operator, or None."""
    return unusable([x for x in inputs if isinstance(x, Tensor)])


def lerp_blocked(x: Tensor, previous: Tensor, weights: Tensor, *rest: Tensor | None) -> str | None:
    if len(weights) > MIXTURES:
        return f"it makes at most {MIXTURES} mixtures at once, got {len(weights)}"
    return blocked(x, previous, weights, *rest[:1])  # where segments start is no number


def norm_blocked(x: Tensor, *rest: Tensor | float) -> str | None:
    if x.shape[-1] > HEAD:
        return f"it takes heads of at most {HEAD}, got {x.shape[-1]}"
    return blocked(x, *rest)


def lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b *t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None = None,
    starts: Bool[Tensor, "b t"] | None = None,
) -> list[Float[Tensor, "b t d"]]:
    from .shift import forward

    return forward(x, previous, weights, offsets, starts)


def relu_square(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    from .gates import relu_square

    return relu_square(x)


def sigmoid_gate(gate: Float[Tensor, "*s"], x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    from .gates import sigmoid_gate

    return sigmoid_gate(gate, x)


def norm_gate(
    x: Float[Tensor, "b t h v"],
    gate: Float[Tensor, "b t c"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
) -> Float[Tensor, "b t c"]:
    from .gates import norm_gate

    return norm_gate(x, gate, weight, bias, eps)
