"""Optimizers, schedules and parameter groups."""

from mmrnn.training.optim.adamw import AdamW
from mmrnn.training.optim.adamw8bit import AdamW8bit
from mmrnn.training.optim.muon import Muon, MuonWithAdamW
from mmrnn.training.optim.optimizer_group import OptimizerGroup
from mmrnn.training.optim.param_groups import hidden_matrices, lr_multipliers, param_groups
from mmrnn.training.optim.schedule import (
    WSD,
    Constant,
    Cosine,
    Linear,
    apply_schedule,
    cosine,
    geometric,
    linear,
    wsd,
)

__all__ = [
    "WSD",
    "AdamW",
    "AdamW8bit",
    "Constant",
    "Cosine",
    "Linear",
    "Muon",
    "MuonWithAdamW",
    "OptimizerGroup",
    "apply_schedule",
    "cosine",
    "geometric",
    "hidden_matrices",
    "linear",
    "lr_multipliers",
    "param_groups",
    "wsd",
]
