"""The training loop: over the steps of a stage, and over the stages of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrnn.training.build import TrainingParts
from mmrnn.training.distributed.checkpoint import TrainingState
from mmrnn.training.distributed.random_state import restore_random
from mmrnn.training.ends import StoppedRun, StopSignals
from mmrnn.training.loop.metrics import Meter
from mmrnn.training.loop.profiler import StepProfiler
from mmrnn.training.loop.step_guard import StepGuard
from mmrnn.training.loop.stepper import Stepper
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.plan import StepCost
from mmrnn.training.precision import LossScale, Precision, resolve
from mmrnn.training.reading.loader import StepLoader
from mmrnn.training.reading.skipped import SkippedSamples
from mmrnn.training.run_log import RunLog, StageLog
from mmrnn.training.saving.checkpointing import Checkpoints
from mmrnn.training.saving.saved_run import Progress, StartPoint
from mmrnn.types import Optimizer


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the stages of a run one after the other, from a checkpoint on where there is one.

    Attributes:
        parts: model, objective, stages, optimizer and schedule.
        out: folder of the run.
        log: of the run.
        load: stage and `samples`, the number that the run has read -> micro-batches of every step.
        skipped: list of the samples that are left out.
        evaluate: held-out accuracy by split.
        start: checkpoint that the run resumes from; None: it begins.
        checkpoints: those that it saves.
        signals: that end it.
        guard: makes the guard of a stage.
        seed: of the run.
        evaluate_every: steps; 0: never.
        costs: FLOPs of the stages, where they are known.
        peak: FLOPs per second that a device can reach; None: not known.
        profile: first and last step that are traced; None: none.
        log_every: steps between records of the log.
        train_chunk: positions of a piece that a micro-batch is read in; 0: it is read at once.
        horizon: pieces that a gradient reaches back over.
    """

    parts: TrainingParts
    out: Path
    load: Callable[..., StepLoader]
    skipped: SkippedSamples
    evaluate: Callable[[], dict[str, float]]
    log: RunLog
    start: StartPoint | None
    checkpoints: Checkpoints
    signals: StopSignals
    guard: Callable[[], StepGuard]
    costs: Mapping[str, StepCost]
    peak: float | None
    profile: tuple[int, int] | None
    precision: Precision
    seed: int
    log_every: int
    evaluate_every: int
    train_chunk: int
    horizon: int

    def train(self) -> None:
        """Train every stage.

        Raises:
            TrainingError: loss, gradient or weights are not finite, or there is nothing to train on.
            ValueError: the checkpoint is damaged, or a stage names no parameter of the model.
            StoppedRun: a signal has stopped the run; it can be resumed at this step.
        """
        start, stages = self.start, self.parts.stages
        reached = start.progress if start else Progress()
        self.log.start(start.steps_done(stages) if start else 0, start.run if start else self.out)
        self.skipped.start(self.parts.data, reached.samples)
        samples, sizes = reached.samples, [stage.steps for stage in stages.values()]
        traced = self.profile if self.parts.world.main else None
        with StepProfiler(traced, self.out) as profiler:
            for number in range(reached.stage, len(sizes)):
                given = start if number == reached.stage else None
                samples = StageRun(self, number, sum(sizes[:number])).train(samples, given, profiler)


class StageRun:
    """Training of one stage.

    Args:
        trainer: of the run.
        number: of the stage.
        before: steps that the stages before have taken.
    """

    log: StageLog
    loader: StepLoader
    state: TrainingState

    def __init__(self, trainer: Trainer, number: int, before: int) -> None:
        self.trainer, self.number, self.before = trainer, number, before
        self.parts, self.world = trainer.parts, trainer.parts.world
        self.name, self.stage = [*self.parts.stages.items()][number]
        self.guard, self.scale = trainer.guard(), LossScale(resolve(trainer.precision, self.parts.device))

    def train(self, samples: int, start: StartPoint | None, profiler: StepProfiler) -> int:
        """Train it; the run has read so many samples.

        Returns:
            Number of samples that the run has read.
        """
        trainer, parts, stage = self.trainer, self.parts, self.stage
        stage.apply_freezing(parts.model)
        groups = param_groups(parts.model, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)
        optimizer = (stage.optimizer or parts.optimizer)(groups, stage.lr)
        self.state = TrainingState(parts.model, optimizer, parts.trained, parts.step, parts.average.tensors())
        cost = trainer.costs.get(self.name)
        meter = Meter(self.world, parts.device, pad=parts.tokenizer.pad, cost=cost, peak=trainer.peak)
        done = start.progress.step if start else 0
        with trainer.log.stage(self.name, meter, steps=stage.steps, start=done, before=self.before) as self.log:
            if start is not None:
                self._restore(start)
            self.loader = trainer.load(stage, samples=samples)
            if len(self.log.window) and self._is_recorded(done):
                # The run was stopped while it was evaluated.
                self._after_step(done)
            steps = self._stepper(optimizer, meter).steps(self.loader, done)
            for result in profiler.watch(steps, self.before + done + 1):
                parts.average.update(parts.model)
                self.log.add(result)
                self._after_step(result.step)
        return self.loader.samples

    def _stepper(self, optimizer: Optimizer, meter: Meter) -> Stepper:
        parts, trainer = self.parts, self.trainer
        return Stepper(
            step=parts.step,
            stage=self.stage,
            optimizer=optimizer,
            schedule=self.stage.schedule or parts.schedule,
            strategy=parts.strategy,
            world=self.world,
            device=parts.device,
            precision=trainer.precision,
            scale=self.scale,
            guard=self.guard,
            report=lambda bad: trainer.log.bad_step(bad, self.before),
            pad=parts.tokenizer.pad,
            skipped=trainer.skipped,
            train_chunk=trainer.train_chunk,
            horizon=trainer.horizon,
            meter=meter,
        )

    def _restore(self, start: StartPoint) -> None:
        """Restore the run at its checkpoint."""
        saved, checkpoints = start.saved, self.trainer.checkpoints
        self.state.load(start.folder, saved.numbers, checkpoints.writer.group)
        if start.run == self.trainer.out:
            checkpoints.resumed(self.before + saved.progress.step)
        for name, part in self._stateful().items():
            part.load_state_dict(saved.counters[name])
        restore_random(saved.random, self.world.rank, self.world.size, self.trainer.seed, saved.progress)

    def _stateful(self) -> dict[str, Any]:
        return {"window": self.log.window, "guard": self.guard, "scale": self.scale}

    def _is_recorded(self, step: int) -> bool:
        return step % self.trainer.log_every == 0 or step == self.stage.steps

    def _after_step(self, step: int) -> None:
        """Write a record, save a checkpoint, and end the run, each where it is due."""
        checkpoints, run_step = self.trainer.checkpoints, self.before + step
        stop, save = self.world.max([self.trainer.signals.received, float(checkpoints.due(run_step))])
        save = bool(save or stop or step == self.stage.steps)
        if save or self._is_recorded(step):
            self.trainer.skipped.flush(self.loader.samples)
        if self._is_recorded(step) and not stop:
            stop = self._record(step)
        if save or stop:
            progress = Progress(self.number, step, self.loader.samples)
            counters = {name: part.state_dict() for name, part in self._stateful().items()}
            lines = self.trainer.log.lines
            lines.flush()
            checkpoints.save(run_step, progress, self.state, counters, wait=bool(stop), full=lines.full)
        if stop:
            raise StoppedRun(int(stop))

    def _record(self, step: int) -> int:
        """Evaluate where it is due, and write a record; return the signal that has stopped the evaluation, or 0."""
        every, more = self.trainer.evaluate_every, {}
        if every and step % every == 0 and step < self.stage.steps:
            try:
                more = {"accuracy": self.trainer.evaluate()}
            except StoppedRun as stopped:
                return stopped.number
        self.trainer.log.write(self.log.record(step) | more)
        return 0
