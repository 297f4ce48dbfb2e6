"""Initial step sizes of recurrences with decays from the input (Mamba, Gated DeltaNet)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STEP_SIZES = (1e-3, 0.1)
"""Smallest and largest step size that a new model starts with."""


@torch.no_grad()
def init_step_bias(bias: Float[Tensor, " c"]) -> None:
    """Initialise in place a bias in front of softplus, so that its step sizes are log-uniform in STEP_SIZES."""
    step = bias.uniform_(*map(math.log, STEP_SIZES)).exp()
    bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse of softplus
