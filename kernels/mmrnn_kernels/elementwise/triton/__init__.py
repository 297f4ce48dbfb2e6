"""The operators on a GPU in Triton, which the first call imports. Differentiable once."""

from jaxtyping import Bool, Float
from torch import Tensor

from ...common.triton import availability
from .limits import MAX_HEAD_SIZE, MAX_MIXTURES


def unavailable_reason(*inputs: Tensor | float | None) -> str | None:
    """Return why this backend cannot run on the inputs of an operator, or None."""
    return availability.unavailable_reason([x for x in inputs if isinstance(x, Tensor)])


def lerp_unavailable_reason(x: Tensor, previous: Tensor, weights: Tensor, *rest: Tensor | None) -> str | None:
    """Return why `lerp` cannot run here, or None. The last input, `starts`, is boolean and not checked."""
    if len(weights) > MAX_MIXTURES:
        return f"it makes at most {MAX_MIXTURES} mixtures at once, got {len(weights)}"
    return unavailable_reason(x, previous, weights, *rest[:1])


def norm_gate_unavailable_reason(x: Tensor, *rest: Tensor | float) -> str | None:
    """Return why `norm_gate` cannot run here, or None."""
    if x.shape[-1] > MAX_HEAD_SIZE:
        return f"it takes heads of at most {MAX_HEAD_SIZE}, got {x.shape[-1]}"
    return unavailable_reason(x, *rest)


def lerp(
    x: Float[Tensor, "b t d"],
    previous: Float[Tensor, "b *t d"],
    weights: Float[Tensor, "n d"],
    offsets: Float[Tensor, "n b t d"] | None = None,
    starts: Bool[Tensor, "b t"] | None = None,
) -> list[Float[Tensor, "b t d"]]:
    """Compute the mixtures of every token and the one before."""
    from .lerp_op import forward

    return forward(x, previous, weights, offsets, starts)


def relu_square(x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Compute `relu(x)^2`."""
    from .gate_ops import relu_square

    return relu_square(x)


def sigmoid_gate(gate: Float[Tensor, "*s"], x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Compute `sigmoid(gate) * x`."""
    from .gate_ops import sigmoid_gate

    return sigmoid_gate(gate, x)


def norm_gate(
    x: Float[Tensor, "b t h v"],
    gate: Float[Tensor, "b t c"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    eps: float,
) -> Float[Tensor, "b t c"]:
    """Normalise every head, then scale, shift and gate with silu."""
    from .gate_ops import norm_gate

    return norm_gate(x, gate, weight, bias, eps)
