"""Dtype of what no stage trains: nothing is added up in it, so that half the memory is enough."""

from collections.abc import Collection

import torch
from torch import nn

from mmrnn.config.error import ConfigError
from mmrnn.config.settings import FrozenDtype, Precision
from mmrnn.training.precision import resolve


def resolve_frozen_dtype(setting: FrozenDtype, precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype of frozen matrices; `auto` is bf16 on a GPU whose forward pass is in bf16, else fp32.

    Raises:
        ConfigError: bf16 is asked for, and the forward pass is in another precision, which would not cast inputs to it.
    """
    found = resolve(precision, device)
    if setting == "auto":
        setting = "bf16" if device.type != "cpu" and found == "bf16" else "fp32"
    if setting == "bf16" and found != "bf16":
        raise ConfigError(f"frozen_dtype: bf16 needs a forward pass in bf16, not in {found}; set precision=bf16")
    return torch.bfloat16 if setting == "bf16" else torch.float32


def cast_frozen(model: nn.Module, trained: Collection[str], dtype: torch.dtype) -> None:
    """Cast the fp32 matrices of a model that no stage trains, in memory or on the meta device.

    Vectors (norms, biases, decays, token shifts) and buffers stay fp32: they take little memory, and autocast computes
    with them in fp32.

    Args:
        trained: names of the parameters that some stage trains.
    """
    for name, parameter in model.named_parameters():
        if name not in trained and parameter.dtype == torch.float32 and parameter.dim() > 1:
            parameter.data = parameter.data.to(dtype)
