"""The decay of the WKV operators."""

import torch
from jaxtyping import Float
from torch import Tensor

MAX_PRE_ACTIVATION = 10.0
"""Above it the decay is 0 in any precision, and exp(w) may be infinite: its gradient would be 0 * inf."""


def log_decay(w: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-exp(w), the logarithm of the decay."""
    return -torch.exp(w.clamp(max=MAX_PRE_ACTIVATION))


def decay(w: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """exp(-exp(w)), the factor of a state at each position."""
    return torch.exp(log_decay(w))
