"""The training loop: over the steps of a stage, and over the stages of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrnn.evaluation.reports.run_folder import LOG, read_log
from mmrnn.io import jsonl
from mmrnn.training.build import TrainingParts
from mmrnn.training.checkpointing import Checkpoints
from mmrnn.training.distributed.checkpoint import TrainingState
from mmrnn.training.distributed.random_state import restore_random
from mmrnn.training.ends import StoppedRun, StopSignals
from mmrnn.training.loader import StepLoader
from mmrnn.training.optim.param_groups import param_groups
from mmrnn.training.optimize import BadStep, Stepper
from mmrnn.training.precision import LossScale, Precision, resolve
from mmrnn.training.record_window import RecordWindow
from mmrnn.training.saved_run import Progress, StartPoint
from mmrnn.training.step_guard import StepGuard
from mmrnn.training.trackers.console import Console
from mmrnn.types import Optimizer

BAD_STEPS = "bad_steps.jsonl"


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains the stages of a run one after the other, from a checkpoint on where there is one.

    Attributes:
        parts: model, objective, stages, optimizer and schedule.
        out: folder of the run, for its log.
        load: stage and `samples`, the number that the run has read -> micro-batches of every step.
        evaluate: held-out accuracy by split.
        start: checkpoint that the run resumes from; None: it begins.
        checkpoints: those that it saves.
        signals: that end it.
        guard: makes the judge of the steps of a stage.
        seed: of the run.
        evaluate_every: steps; 0: never.
        log_every: steps between records of the log.
        train_chunk: positions of a piece that a micro-batch is read in; 0: it is read at once.
        horizon: pieces that a gradient reaches back over.
    """

    parts: TrainingParts
    out: Path
    load: Callable[..., StepLoader]
    evaluate: Callable[[], dict[str, float]]
    start: StartPoint | None
    checkpoints: Checkpoints
    signals: StopSignals
    guard: Callable[[], StepGuard]
    console: Console
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
        reached = self.start.progress if self.start else Progress()
        self.parts.world.on_main(self._prepare_log)
        samples, steps = reached.samples, 0
        for number, (name, stage) in enumerate(self.parts.stages.items()):
            if number >= reached.stage:
                resumed = self.start if number == reached.stage else None
                samples = StageRun(self, number, name, steps).train(samples, resumed)
            steps += stage.steps

    def _prepare_log(self) -> None:
        """Keep the records of the steps that are done; those of later steps will be written again."""
        done = self.start.steps_done(self.parts.stages) if self.start else 0
        source = self.start.run if self.start else self.out
        jsonl.replace(self.out / LOG, [record for record in read_log(source) if record["step"] <= done])
        bad = [record for record in jsonl.records(source / BAD_STEPS) if record["step"] <= done]
        if bad or (self.out / BAD_STEPS).is_file():
            jsonl.replace(self.out / BAD_STEPS, bad)


class StageRun:
    """Training of one stage.

    Args:
        trainer: of the run.
        number: of the stage.
        name: of the stage.
        before: steps that the stages before have taken.
    """

    def __init__(self, trainer: Trainer, number: int, name: str, before: int) -> None:
        self.trainer, self.number, self.name, self.before = trainer, number, name, before
        self.parts, self.stage, self.world = trainer.parts, trainer.parts.stages[name], trainer.parts.world
        self.window, self.guard = RecordWindow(self.world), trainer.guard()
        self.scale = LossScale(resolve(trainer.precision, self.parts.device))

    def train(self, samples: int, start: StartPoint | None) -> int:
        """Train it; the run has read so many samples.

        Returns:
            Number of samples that the run has read.
        """
        parts, stage = self.parts, self.stage
        stage.apply_freezing(parts.model)
        groups = param_groups(parts.model, lr_mult=stage.lr_mult, layer_lr_decay=stage.layer_lr_decay)
        optimizer = (stage.optimizer or parts.optimizer)(groups, stage.lr)
        self.state = TrainingState(parts.model, optimizer, parts.trained, parts.step)
        done = 0 if start is None else self._restore(start)
        self.loader = self.trainer.load(stage, samples=samples)
        with self.trainer.console.progress(self.name, stage.steps, done) as show:
            if len(self.window) and self._is_recorded(done):
                # The run was stopped while it was evaluated.
                self._after_step(done)
            for result in self._stepper(optimizer).steps(self.loader, done):
                show(result.step, f"{self.name} loss {result.loss:.3f}")
                dropped = ((one.id, one.reason) for one in result.dropped)
                self.window.add(result.loss, result.lr, result.skipped, dropped)
                self._after_step(result.step)
        return self.loader.samples

    def _stepper(self, optimizer: Optimizer) -> Stepper:
        parts = self.parts
        return Stepper(
            step=parts.step,
            stage=self.stage,
            optimizer=optimizer,
            schedule=self.stage.schedule or parts.schedule,
            strategy=parts.strategy,
            world=self.world,
            device=parts.device,
            precision=self.trainer.precision,
            scale=self.scale,
            guard=self.guard,
            report=self._report,
            pad=parts.tokenizer.pad,
            train_chunk=self.trainer.train_chunk,
            horizon=self.trainer.horizon,
        )

    def _restore(self, start: StartPoint) -> int:
        """Restore the run at its checkpoint; return the number of steps of this stage that are done."""
        saved, checkpoints = start.saved, self.trainer.checkpoints
        self.state.load(start.folder, saved.numbers, checkpoints.writer.group)
        if start.run == self.trainer.out:
            checkpoints.resumed(self.before + saved.progress.step)
        for name, part in self._stateful().items():
            part.load_state_dict(saved.counters[name])
        restore_random(saved.random, self.world.rank, self.world.size, self.trainer.seed, saved.progress)
        return saved.progress.step

    def _stateful(self) -> dict[str, Any]:
        return {"window": self.window, "guard": self.guard, "scale": self.scale}

    def _is_recorded(self, step: int) -> bool:
        return step % self.trainer.log_every == 0 or step == self.stage.steps

    def _after_step(self, step: int) -> None:
        """Write a record, save a checkpoint, and end the run, each where it is due."""
        checkpoints, run_step = self.trainer.checkpoints, self.before + step
        stop, save = self.world.max([self.trainer.signals.received, float(checkpoints.due(run_step))])
        if self._is_recorded(step) and not stop:
            stop = self._record(step)
        if save or stop or step == self.stage.steps:
            progress = Progress(self.number, step, self.loader.samples)
            counters = {name: part.state_dict() for name, part in self._stateful().items()}
            checkpoints.save(run_step, progress, self.state, counters, wait=bool(stop))
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
        record = {"step": self.before + step, "stage": self.name, **self.window.take(), **more}
        if self.world.main:
            jsonl.append(self.trainer.out / LOG, record)
        return 0

    def _report(self, bad: BadStep) -> None:
        """Say and note a step that is no good one, with the samples of all ranks."""
        ids = self.world.gather(bad.ids)
        step = self.before + bad.step
        self.trainer.console.say(f"step {step} {'is skipped' if bad.skipped else 'is made'}: {bad.fault}")
        if self.world.main:
            record = {"step": step, "skipped": bad.skipped, "fault": bad.fault, "ids": ids}
            jsonl.append(self.trainer.out / BAD_STEPS, record)
