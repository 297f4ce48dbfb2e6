"""The loop: batches in, steps of an optimiser out."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Literal

import torch

from mmrnn.model.vlm import VLM
from mmrnn.training.optim.build import Optimizer
from mmrnn.training.stage import Stage
from mmrnn.training.step import TrainStep, shares
from mmrnn.types import Batch, Objective
from mmrnn_kernels.common.cpu_features import multiplies_bf16

Precision = Literal["auto", "fp32", "bf16"]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


def autocast(precision: Precision, device: torch.device | str):
    """The context that a forward pass runs in; parameters stay fp32. `auto` takes bf16 where it is the faster one."""
    kind = torch.device(device).type
    if precision == "bf16" or (precision == "auto" and (kind != "cpu" or multiplies_bf16())):
        return torch.autocast(kind, dtype=torch.bfloat16)
    return nullcontext()


def run_stage(
    model: VLM,
    stage: Stage,
    optimizer: Optimizer,
    objective: Objective,
    batches: Iterator[Sequence[Batch]],
    *,
    start: int = 0,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    after_step: Callable[[int, float, float], None] = lambda step, loss, rate: None,
) -> None:
    """Run the steps `start` to `stage.steps`.

    Args:
        batches: for every step its micro-batches, which together have the loss of one batch (see `portion`).
        after_step: told the number of steps done, their last loss and learning rate.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    module = TrainStep(model, objective)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for step in range(start, stage.steps):
        rate = stage.set_rates(optimizer, step)
        micro = next(batches)
        total = 0.0
        for batch, share in zip(micro, shares(objective, micro), strict=True):
            with autocast(precision, device):
                loss = module(batch.to(device), share)
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss became {total} at step {step}; lower the learning rate ({stage.lr}) or train in fp32"
            )
        if stage.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(learning, stage.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        after_step(step + 1, total, rate)
