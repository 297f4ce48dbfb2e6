"""The training loop: over the steps of a stage, and over the stages of a run."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.reports.run_folder import LOG, read_log
from mmrnn.io import jsonl
from mmrnn.training import resume
from mmrnn.training.build import TrainingParts
from mmrnn.training.error import TrainingError
from mmrnn.training.loader import StepBatches, StepLoader, usable_steps
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.optim.schedule import apply_schedule
from mmrnn.training.precision import Precision, autocast
from mmrnn.training.resume import Progress
from mmrnn.training.stage import Stage
from mmrnn.training.step import TrainStep, shares
from mmrnn.training.trackers.console import Console
from mmrnn.types import Batch, Optimizer, Schedule

MAX_SKIPPED_STEPS = 5
"""Steps in a row whose loss or gradient is not finite, with which a run ends."""


class StepResult(NamedTuple):
    """One optimizer step.

    Attributes:
        step: number of steps done.
        loss: of the step.
        lr: learning rate.
        skipped: attempts at this step that were skipped, as their loss or gradient was not finite.
    """

    step: int
    loss: float
    lr: float
    skipped: int = 0


def train_steps(
    module: TrainStep,
    stage: Stage,
    optimizer: Optimizer,
    schedule: Schedule,
    batches: Iterator[Sequence[Batch]],
    *,
    start: int = 0,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
) -> Iterator[StepResult]:
    """Take the optimizer steps `start` to `stage.steps`, one at a time.

    Where the loss or the gradient is not finite, the weights are left as they are, and the step takes the next batches.

    Args:
        module: model and objective.
        stage: number of steps, learning rate and norm of the gradient.
        optimizer: of the trained parameters.
        schedule: of the learning rate.
        batches: the micro-batches of every step.
        start: steps that are done.
        device: of the model.
        precision: of the forward pass.

    Raises:
        TrainingError: loss or gradient is not finite `MAX_SKIPPED_STEPS` times in a row.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for step in range(start, stage.steps):
        lr = apply_schedule(optimizer, schedule, step, steps=stage.steps, lr=stage.lr)
        skipped = 0
        while True:
            losses = _backward(module, next(batches), device, precision)
            loss, norm = _loss_and_norm(losses, trained, stage.max_grad_norm)
            if math.isfinite(loss) and math.isfinite(norm):
                break
            optimizer.zero_grad(set_to_none=True)
            skipped += 1
            if skipped == MAX_SKIPPED_STEPS:
                raise TrainingError(
                    f"step {step + 1} failed {skipped} times: its loss ({loss}) or the norm of its gradient ({norm}) "
                    f"is not finite; lower the learning rate ({stage.lr}) or train in fp32"
                )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield StepResult(step + 1, loss, lr, skipped)


def _backward(
    module: TrainStep, micro_batches: Sequence[Batch], device: torch.device | str, precision: Precision
) -> list[Tensor]:
    """Losses of the micro-batches of a step, whose gradients are added up."""
    losses = []
    on_gpu = torch.device(device).type == "cuda"
    for batch, share in zip(micro_batches, shares(module.objective, micro_batches), strict=True):
        with autocast(precision, device):
            loss = module(batch.to(device, non_blocking=on_gpu), share)
        loss.backward()
        losses.append(loss.detach())
    return losses


def _loss_and_norm(
    losses: Sequence[Tensor], trained: Sequence[nn.Parameter], max_grad_norm: float
) -> tuple[float, float]:
    """Sum of the losses, and norm of the gradient before it is clipped; the only synchronisation of a step."""
    norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    if max_grad_norm:
        nn.utils.clip_grads_with_norm_(trained, max_grad_norm, norm)
    *values, norm = torch.stack([*losses, norm.to(losses[0].device)]).tolist()
    return sum(values), norm


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the stages of a run one after the other, and resumes where a snapshot was saved.

    Attributes:
        parts: model, objective, stages, optimizer and schedule.
        out: folder of the run, for its log and snapshot.
        load: stage and `samples`, the number that the run has read -> micro-batches of every step.
        evaluate: held-out accuracy by split.
        evaluate_every: steps; 0: never.
        log_every: steps between records of the log; snapshots are saved with them.
        save_every_seconds: at least so long between two snapshots.
    """

    parts: TrainingParts
    out: Path
    load: Callable[..., StepLoader]
    evaluate: Callable[[], dict[str, float]]
    console: Console
    precision: Precision
    log_every: int
    evaluate_every: int
    save_every_seconds: float

    def train(self) -> None:
        """Train every stage, from the snapshot in the folder on.

        Raises:
            TrainingError: loss, gradient or weights are not finite, or there is nothing to train on.
            ValueError: the snapshot is damaged, or a stage names no parameter of the model.
        """
        snapshot = resume.load(self.out, self.parts.device)
        reached = snapshot["progress"] if snapshot else Progress()
        samples, steps = reached.samples, 0
        for number, (name, stage) in enumerate(self.parts.stages.items()):
            if number >= reached.stage:
                samples = self._train_stage(number, name, samples, steps, snapshot if number == reached.stage else None)
            steps += stage.steps

    def _train_stage(self, number: int, name: str, samples: int, steps: int, snapshot: dict | None) -> int:
        """Train one stage; the run has read so many samples, and the stages before took so many steps.

        Returns:
            Number of samples that the run has read.
        """
        parts, stage = self.parts, self.parts.stages[name]
        stage.apply_freezing(parts.model)
        groups = param_groups(parts.model, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)
        optimizer = (stage.optimizer or parts.optimizer)(groups, stage.lr)
        start = 0
        if snapshot is not None:
            resume.restore(snapshot, parts.model, optimizer)
            start = snapshot["progress"].step
        # Records of steps after the snapshot will be written again.
        jsonl.replace(self.out / LOG, [record for record in read_log(self.out) if record["step"] <= steps + start])
        loader, dropped = self.load(stage, samples=samples), LeftOut()
        results = train_steps(
            TrainStep(parts.model, parts.objective),
            stage,
            optimizer,
            stage.schedule or parts.schedule,
            (_count_dropped(step, dropped) for step in usable_steps(loader)),
            start=start,
            device=parts.device,
            precision=self.precision,
        )
        saved_at = time.monotonic()
        since_record: list[StepResult] = []
        with self.console.progress(name, stage.steps, start) as show:
            for result in results:
                since_record.append(result)
                show(result.step, f"{name} loss {result.loss:.3f}")
                last = result.step == stage.steps
                if result.step % self.log_every and not last:
                    continue
                record = {"step": steps + result.step, "stage": name, **_summary(since_record, dropped)}
                since_record.clear()
                dropped.reasons.clear()
                if self.evaluate_every and result.step % self.evaluate_every == 0 and not last:
                    record["accuracy"] = self.evaluate()
                jsonl.append(self.out / LOG, record)
                if last or time.monotonic() - saved_at > self.save_every_seconds:
                    progress = Progress(number, result.step, loader.samples)
                    resume.save(self.out, progress, parts.model, optimizer, parts.trained)
                    saved_at = time.monotonic()
        return loader.samples


def _count_dropped(step: StepBatches, dropped: LeftOut) -> list[Batch]:
    """Micro-batches of a step; what it dropped is counted."""
    for one in step.dropped:
        dropped.add(one.reason, one.id)
    return step.batches


def _summary(results: Sequence[StepResult], dropped: LeftOut) -> dict[str, Any]:
    """Mean loss, learning rate, and number of skipped steps and dropped samples since the last record."""
    return {
        "loss": sum(result.loss for result in results) / len(results),
        "lr": results[-1].lr,
        "skipped_steps": sum(result.skipped for result in results),
        "dropped": dropped.record(),
    }
