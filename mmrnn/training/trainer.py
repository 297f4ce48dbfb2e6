"""The training loop: over the steps of a stage, and over the stages of a run."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from mmrnn.training import resume
from mmrnn.training.build import TrainingParts
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.optim.schedule import apply_schedule
from mmrnn.training.precision import Precision, autocast
from mmrnn.training.resume import Progress
from mmrnn.training.stage import Stage
from mmrnn.training.step import TrainStep, shares
from mmrnn.training.trackers import jsonl
from mmrnn.training.trackers.console import Console
from mmrnn.types import Batch, Optimizer, Schedule

LOG = "log.jsonl"


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what to change."""


class StepResult(NamedTuple):
    """One optimizer step: number of steps done, loss and learning rate."""

    step: int
    loss: float
    lr: float


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
        TrainingError: the loss is not finite.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for step in range(start, stage.steps):
        lr = apply_schedule(optimizer, schedule, step, steps=stage.steps, lr=stage.lr)
        micro_batches = next(batches)
        total = 0.0
        for batch, share in zip(micro_batches, shares(module.objective, micro_batches), strict=True):
            with autocast(precision, device):
                loss = module(batch.to(device), share)
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss became {total} at step {step}; lower the learning rate ({stage.lr}) or train in fp32"
            )
        if stage.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(trained, stage.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield StepResult(step + 1, total, lr)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the stages of a run one after the other, and resumes where a snapshot was saved.

    Attributes:
        parts: model, objective, stages, optimizer and schedule.
        out: folder of the run, for its log and snapshot.
        load: stage, steps of it that are done and samples of the stages before -> micro-batches of every step.
        evaluate: held-out accuracy by split.
        evaluate_every: steps; 0: never.
        log_every: steps between records of the log; snapshots are saved with them.
        save_every_seconds: at least so long between two snapshots.
    """

    parts: TrainingParts
    out: Path
    load: Callable[[Stage, int, int], Iterator[list[Batch]]]
    evaluate: Callable[[], dict[str, float]]
    console: Console
    precision: Precision
    log_every: int
    evaluate_every: int
    save_every_seconds: float

    def train(self) -> None:
        """Train every stage, from the snapshot in the folder on.

        Raises:
            TrainingError: the loss is not finite.
            ValueError: the snapshot is damaged, or a stage names no parameter of the model.
        """
        snapshot = resume.load(self.out, self.parts.device)
        reached = snapshot["progress"] if snapshot else Progress()
        samples = steps = 0
        for number, (name, stage) in enumerate(self.parts.stages.items()):
            if number >= reached.stage:
                self._train_stage(number, name, samples, steps, snapshot if number == reached.stage else None)
            samples += stage.steps * stage.batch_size
            steps += stage.steps

    def _train_stage(self, number: int, name: str, samples: int, steps: int, snapshot: dict | None) -> None:
        """Train one stage; the stages before it took so many samples and steps."""
        parts, stage = self.parts, self.parts.stages[name]
        stage.apply_freezing(parts.model)
        groups = param_groups(parts.model, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)
        optimizer = (stage.optimizer or parts.optimizer)(groups, stage.lr)
        start = 0
        if snapshot is not None:
            resume.restore(snapshot, parts.model, optimizer)
            start = snapshot["progress"].step
        jsonl.truncate_log(self.out / LOG, steps + start)
        losses: list[float] = []
        saved_at = time.monotonic()
        results = train_steps(
            TrainStep(parts.model, parts.objective),
            stage,
            optimizer,
            stage.schedule or parts.schedule,
            self.load(stage, start, samples),
            start=start,
            device=parts.device,
            precision=self.precision,
        )
        with self.console.bar() as bar:
            task = bar.add_task(name, total=stage.steps, completed=start)
            for step, loss, lr in results:
                losses.append(loss)
                bar.update(task, completed=step, description=f"{name} loss {loss:.3f}")
                last = step == stage.steps
                if step % self.log_every and not last:
                    continue
                record = {"step": steps + step, "stage": name, "loss": sum(losses) / len(losses), "lr": lr}
                losses.clear()
                if self.evaluate_every and step % self.evaluate_every == 0 and not last:
                    record["accuracy"] = self.evaluate()
                jsonl.append(self.out / LOG, record)
                if last or time.monotonic() - saved_at > self.save_every_seconds:
                    resume.save(self.out, Progress(number, step), parts.model, optimizer, parts.trained)
                    saved_at = time.monotonic()
