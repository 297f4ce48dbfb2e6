"""The training loop: over the steps of a stage, and over the stages of a run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.reports.run_folder import LOG, read_log
from mmrnn.io import jsonl
from mmrnn.training import resume
from mmrnn.training.build import TrainingParts
from mmrnn.training.loader import StepLoader
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.optimize import Stepper, StepResult
from mmrnn.training.precision import LossScale, Precision, resolve
from mmrnn.training.resume import Progress
from mmrnn.training.trackers.console import Console


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
        train_chunk: positions of a piece that a micro-batch is read in; 0: it is read at once.
        horizon: pieces that a gradient reaches back over.
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
    train_chunk: int
    horizon: int

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
        parts.world.on_main(lambda: _truncate_log(self.out, steps + start))
        loader = self.load(stage, samples=samples)
        stepper = Stepper(
            step=parts.step,
            stage=stage,
            optimizer=optimizer,
            schedule=stage.schedule or parts.schedule,
            strategy=parts.strategy,
            world=parts.world,
            device=parts.device,
            precision=self.precision,
            scale=LossScale(resolve(self.precision, parts.device)),
            pad=parts.tokenizer.pad,
            train_chunk=self.train_chunk,
            horizon=self.horizon,
        )
        saved_at = time.monotonic()
        since_record: list[StepResult] = []
        with self.console.progress(name, stage.steps, start) as show:
            for result in stepper.steps(loader, start):
                since_record.append(result)
                show(result.step, f"{name} loss {result.loss:.3f}")
                last = result.step == stage.steps
                if result.step % self.log_every and not last:
                    continue
                record = {"step": steps + result.step, "stage": name, **self._summary(since_record)}
                since_record.clear()
                if self.evaluate_every and result.step % self.evaluate_every == 0 and not last:
                    record["accuracy"] = self.evaluate()
                if parts.world.main:
                    jsonl.append(self.out / LOG, record)
                    if last or time.monotonic() - saved_at > self.save_every_seconds:
                        progress = Progress(number, result.step, loader.samples)
                        resume.save(self.out, progress, parts.model, optimizer, parts.trained)
                        saved_at = time.monotonic()
        return loader.samples

    def _summary(self, results: Sequence[StepResult]) -> dict[str, Any]:
        """Mean loss, learning rate, and number of skipped steps and dropped samples since the last record."""
        dropped = LeftOut.of((one.id, one.reason) for result in results for one in result.dropped)
        return {
            "loss": sum(result.loss for result in results) / len(results),
            "lr": results[-1].lr,
            "skipped_steps": sum(result.skipped for result in results),
            "dropped": LeftOut.merge(self.parts.world.gather(dropped.record())).record(),
        }


def _truncate_log(out: Path, step: int) -> None:
    jsonl.replace(out / LOG, [record for record in read_log(out) if record["step"] <= step])
