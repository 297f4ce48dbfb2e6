"""Optimizer steps of a stage, taken by all processes together."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from mmrnn.config.device import KINDS
from mmrnn.training.distributed.strategies import Single
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.loop.blank import blank_row
from mmrnn.training.loop.chunked import split
from mmrnn.training.loop.metrics import Meter
from mmrnn.training.loop.ready import Ready, next_usable
from mmrnn.training.loop.step_guard import StepGuard
from mmrnn.training.optim.schedule import apply_schedule
from mmrnn.training.precision import LossScale, Precision, autocast
from mmrnn.training.reading.loader import StepLoader
from mmrnn.training.reading.sample_reader import SkippedSample
from mmrnn.training.reading.skipped import SkippedSamples
from mmrnn.training.stage import Stage
from mmrnn.training.step import Share, TrainStep
from mmrnn.types import Batch, Optimizer, Schedule, Strategy


class BadStep(NamedTuple):
    """An attempt at a step whose loss or gradient is not finite, or whose loss is far above those before.

    Attributes:
        step: its number in the stage, from 1.
        skipped: the weights stay as they are.
        fault: in words.
        ids: of the samples of this process.
    """

    step: int
    skipped: bool
    fault: str
    ids: list[str]


class StepResult(NamedTuple):
    """One optimizer step.

    Attributes:
        step: number of steps done.
        loss: of the step.
        lr: learning rate.
        norm: of the gradient, before it is clipped.
        skipped: attempts at this step that were skipped, as the guard wanted.
        dropped: samples that this process read for the step and did not train on.
        tokens: that this process read for it, without padding.
    """

    step: int
    loss: float
    lr: float
    norm: float
    skipped: int = 0
    dropped: Sequence[SkippedSample] = ()
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Stepper:
    """Takes the optimizer steps of a stage. All processes call it alike, each with its micro-batches.

    Attributes:
        step: model and objective.
        stage: number of steps, learning rate and norm of the gradient.
        optimizer: of the trained parameters.
        schedule: of the learning rate.
        strategy: says when gradients are averaged.
        world: the processes.
        device: of this process.
        precision: of the forward pass.
        scale: of the loss.
        guard: says which attempts are skipped.
        report: takes bad steps.
        pad: id of the token that stands in for a micro-batch without samples.
        skipped: takes the samples that are dropped; None: nobody does.
        train_chunk: positions of a piece that a micro-batch is read in; 0: it is read at once.
        horizon: pieces that a gradient reaches back over.
        meter: counts what the steps do.
    """

    step: TrainStep
    stage: Stage
    optimizer: Optimizer
    schedule: Schedule
    strategy: Strategy = field(default_factory=Single)
    world: World = field(default_factory=World)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "auto"
    scale: LossScale = field(default_factory=LossScale)
    guard: StepGuard = field(default_factory=StepGuard)
    report: Callable[[BadStep], None] | None = None
    pad: int = 0
    skipped: SkippedSamples | None = None
    train_chunk: int = 0
    horizon: int = 1
    meter: Meter = field(default_factory=Meter)

    @cached_property
    def module(self) -> nn.Module:
        """The step as the strategy wraps it."""
        return self.strategy.wrap(self.step)

    def steps(self, loader: StepLoader, start: int = 0) -> Iterator[StepResult]:
        """Take the steps `start` to `stage.steps`, one at a time.

        Where the guard wants it, the weights are left as they are, and the step takes the next samples.

        Raises:
            TrainingError: the guard ends the run, or there is nothing to train on.
        """
        for step in range(start, self.stage.steps):
            with self.meter.step():
                result = self._take(step, loader)
            yield result

    def _take(self, step: int, loader: StepLoader) -> StepResult:
        """Take a step; its samples may have to be read several times."""
        lr = apply_schedule(self.optimizer, self.schedule, step, steps=self.stage.steps, lr=self.stage.lr)
        skipped, tokens, dropped = 0, 0, []
        while True:
            with self.meter.waiting(), record_function("wait for data"):
                ready = next_usable(loader, self.step.objective, self.world, self.skipped)
            tokens += self.meter.count(ready.micro_batches, samples=len(ready.ids))
            dropped += ready.dropped
            loss, norm = self.attempt(ready)
            retry = self.scale.update(math.isfinite(loss) and math.isfinite(norm))
            done = not retry and self._is_accepted(step + 1, loss, norm, ready.ids)
            with record_function("optimizer"):
                if done:
                    self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            if done:
                break
            skipped += not retry
        return StepResult(step + 1, loss, lr, norm, skipped, dropped, tokens)

    def _is_accepted(self, step: int, loss: float, norm: float, ids: list[str]) -> bool:
        skip, fault, end = self.guard.check(step, loss, norm, self.stage.lr)
        if fault and self.report is not None:
            self.report(BadStep(step, skip, fault, ids))
        if end:
            raise TrainingError(end)
        return not skip

    def attempt(self, ready: Ready) -> tuple[float, float]:
        """Compute the gradient of a step, clipped, without the update.

        Returns:
            Loss of the step, and norm of its gradient before it was clipped.
        """
        micro_batches = self._pieces(ready.micro_batches)
        losses = []
        for number, (pieces, share) in enumerate(zip(micro_batches, ready.shares, strict=True), 1):
            losses += self._backward(pieces, share, last=number == len(micro_batches))
        return self._loss_and_norm(losses)

    def _pieces(self, micro_batches: Sequence[Batch | None]) -> list[list[Batch]]:
        """The pieces of every micro-batch, as many on all processes: the last ones of some may be blank."""
        hook = self.step.model.hook
        together = hook is not None and hook.looks_ahead
        found = [
            [blank_row(self.pad)]
            if batch is None
            else split(batch, self.step.objective, self.train_chunk, keep_adjoining=together)
            for batch in micro_batches
        ]
        if not self.train_chunk:
            return found
        numbers = self.world.max([len(pieces) for pieces in found])
        return [
            pieces + [blank_row(self.pad, len(pieces[0].sequence.ids))] * (int(number) - len(pieces))
            for pieces, number in zip(found, numbers, strict=True)
        ]

    def _backward(self, pieces: Sequence[Batch], share: Share, *, last: bool) -> list[Tensor]:
        """Losses of every `horizon` pieces of one micro-batch, whose gradients are computed together."""
        losses, pending, state = [], 0.0, None
        for number, piece in enumerate(pieces, 1):
            ends = number == len(pieces)
            with self.strategy.sync(self.module, last and ends):
                with autocast(self.precision, self.device), record_function("forward"):
                    batch = piece.to(self.device, non_blocking=KINDS[self.device.type].pinned_memory)
                    loss, state = self.module(batch, share, state)
                pending = pending + loss
                if ends:
                    state = None  # a KV cache need not stay in memory
                if ends or number % self.horizon == 0:
                    if pending.requires_grad:  # not for a text, where the connector alone is trained
                        with record_function("backward"):
                            (pending * self.scale.factor).backward()
                    losses.append(pending.detach())
                    pending = 0.0
                    state = None if state is None else state.detach()
        return losses

    def _loss_and_norm(self, losses: Sequence[Tensor]) -> tuple[float, float]:
        """Sum of the losses, and norm of the gradient before it is clipped; the only synchronisation of a step."""
        trained = [parameter for parameter in self.step.parameters() if parameter.requires_grad]
        self.scale.unscale(trained)
        norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
        if self.stage.max_grad_norm:
            nn.utils.clip_grads_with_norm_(trained, self.stage.max_grad_norm, norm)
        whole = norm.full_tensor() if self.strategy.shards else norm
        *values, norm = torch.stack([*losses, whole.to(losses[0].device)]).tolist()
        [loss] = self.world.sum([sum(values) / self.world.size])
        return loss, norm
