"""WKV-7 of log-decays on the CPU in native code (../wkv7/native/wkv7.cpp)."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..common.autograd import register_recurrence
from ..common.segments import Segments
from ..wkv7 import cpu as wkv7


def unavailable_reason(*inputs: Tensor | Segments | None) -> str | None:
    """Return why the native code cannot run on the inputs of the operator, or None. The first call builds."""
    return wkv7.unavailable_reason(*inputs[:6])


def log_wkv7_cpu(
    r: Float[Tensor, "b t h k"],
    g: Float[Tensor, "b t h k"],
    k: Float[Tensor, "b t h k"],
    v: Float[Tensor, "b t h v"],
    a: Float[Tensor, "b t h k"],
    b: Float[Tensor, "b t h k"],
    state: Float[Tensor, "b h k v"] | None = None,
) -> tuple[Float[Tensor, "b t h v"], Float[Tensor, "b h k v"]]:
    """Compute WKV-7 with the decay exp(g). Differentiable once."""
    return forward(r, g, k, v, a, b, state)


@torch.library.custom_op("mmrnn::delta_cpu", mutates_args=(), device_types="cpu")
def forward(
    r: Tensor, g: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state."""
    return wkv7.run_forward((r, g, k, v, a, b), state, logarithms=True)


@torch.library.custom_op("mmrnn::delta_cpu_backward", mutates_args=(), device_types="cpu")
def backward(
    r: Tensor,
    g: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None,
    dout: Tensor | None,
    dend: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of r, g, k, v, a, b and the initial state (empty if there is none)."""
    return wkv7.run_backward((r, g, k, v, a, b), state, dout, dend, logarithms=True)


register_recurrence(forward, backward, value=3, state=6)
