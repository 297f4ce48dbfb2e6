"""Precision of the forward pass."""

from contextlib import AbstractContextManager, nullcontext

import torch

from mmrnn.config.settings import Precision
from mmrnn_kernels.common.cpu_features import multiplies_bf16


def autocast(precision: Precision, device: torch.device | str) -> AbstractContextManager:
    """Context of a forward pass; parameters stay fp32. `auto`: bf16 where the device multiplies it natively."""
    kind = torch.device(device).type
    if precision == "bf16" or (precision == "auto" and (kind != "cpu" or multiplies_bf16())):
        return torch.autocast(kind, dtype=torch.bfloat16)
    return nullcontext()
