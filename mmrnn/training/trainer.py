"""The training loop: over the steps of a stage, and over the stages of a run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmrnn.training import resume
from mmrnn.training.build import TrainingParts
from mmrnn.training.loader import StepLoader
from mmrnn.training.metrics import Meter
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.optimize import Stepper
from mmrnn.training.plan import StepCost
from mmrnn.training.precision import LossScale, Precision, resolve
from mmrnn.training.profiler import StepProfiler
from mmrnn.training.resume import Progress
from mmrnn.training.run_log import RunLog
from mmrnn.training.skipped import SkippedSamples


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the stages of a run one after the other, and resumes where a snapshot was saved.

    Attributes:
        parts: model, objective, stages, optimizer and schedule.
        out: folder of the run, for its snapshot.
        log: of the run.
        load: stage and `samples`, the number that the run has read -> micro-batches of every step.
        skipped: list of the samples that are left out.
        evaluate: held-out accuracy by split.
        evaluate_every: steps; 0: never.
        costs: FLOPs of the stages, where they are known.
        peak: FLOPs per second that a device can reach; None: not known.
        profile: first and last step that are traced; None: none.
        log_every: steps between records of the log; snapshots are saved with them.
        save_every_seconds: at least so long between two snapshots.
        train_chunk: positions of a piece that a micro-batch is read in; 0: it is read at once.
        horizon: pieces that a gradient reaches back over.
    """

    parts: TrainingParts
    out: Path
    load: Callable[..., StepLoader]
    skipped: SkippedSamples
    evaluate: Callable[[], dict[str, float]]
    log: RunLog
    costs: Mapping[str, StepCost]
    peak: float | None
    profile: tuple[int, int] | None
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
        sizes = [stage.steps for stage in self.parts.stages.values()]
        self.log.start(sum(sizes[: reached.stage]) + reached.step)
        samples = reached.samples
        self.skipped.start(self.parts.data, samples)
        traced = self.profile if self.parts.world.main else None
        with StepProfiler(traced, self.out) as profiler:
            for number in range(reached.stage, len(sizes)):
                given = snapshot if number == reached.stage else None
                samples = self._train_stage(number, samples, sum(sizes[:number]), given, profiler)

    def _train_stage(self, number: int, samples: int, steps: int, snapshot: dict | None, profiler: StepProfiler) -> int:
        """Train one stage; the run has read so many samples, and the stages before took so many steps.

        Returns:
            Number of samples that the run has read.
        """
        parts, (name, stage) = self.parts, [*self.parts.stages.items()][number]
        stage.apply_freezing(parts.model)
        groups = param_groups(parts.model, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)
        optimizer = (stage.optimizer or parts.optimizer)(groups, stage.lr)
        start = 0
        if snapshot is not None:
            resume.restore(snapshot, parts.model, optimizer)
            start = snapshot["progress"].step
        meter = Meter(parts.world, parts.device, pad=parts.tokenizer.pad, cost=self.costs.get(name), peak=self.peak)
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
            skipped=self.skipped,
            train_chunk=self.train_chunk,
            horizon=self.horizon,
            meter=meter,
        )
        saved_at = time.monotonic()
        with self.log.stage(name, meter, steps=stage.steps, start=start, before=steps) as log:
            for result in profiler.watch(stepper.steps(loader, start), steps + start + 1):
                log.add(result)
                last = result.step == stage.steps
                if result.step % self.log_every and not last:
                    continue
                self.skipped.flush(loader.samples)
                record = log.record()
                if self.evaluate_every and result.step % self.evaluate_every == 0 and not last:
                    record["accuracy"] = self.evaluate()
                self.log.write(record)
                if parts.world.main and (last or time.monotonic() - saved_at > self.save_every_seconds):
                    progress = Progress(number, result.step, loader.samples)
                    resume.save(self.out, progress, parts.model, optimizer, parts.trained)
                    saved_at = time.monotonic()
        return loader.samples
