"""Log of a run: records into `log.jsonl`, to the trackers and to the console."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmrnn.evaluation.reports.run_folder import LOG, read_log
from mmrnn.io import jsonl
from mmrnn.training.distributed.world import World
from mmrnn.training.loop.metrics import Meter
from mmrnn.training.loop.record_window import RecordWindow
from mmrnn.training.loop.stepper import BadStep, StepResult
from mmrnn.training.reading.skipped import SKIPPED
from mmrnn.training.saving.line_writer import LineWriter
from mmrnn.training.trackers.console import Console, TimeLeft, rounded
from mmrnn.training.trackers.status_line import status_line
from mmrnn.training.trackers.tracking import Tracking

BAD_STEPS = "bad_steps.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """Log of a run.

    Attributes:
        out: folder of the run.
        world: all processes; the first one writes.
        console: shows the progress.
        tracking: shows the records elsewhere.
        steps: of all stages.
    """

    out: Path
    world: World
    console: Console
    tracking: Tracking
    steps: int

    @cached_property
    def lines(self) -> LineWriter:
        """Writer of the lists of the run, on rank 0."""
        return LineWriter(self.console.say)

    def start(self, step: int, source: Path) -> None:
        """Drop the records after so many steps, which will be written again, and start the trackers.

        Args:
            step: of the run.
            source: folder of the run that is resumed, which may be another.

        Raises:
            ValueError: the log is damaged; the message names file and line.
        """
        self.world.on_main(lambda: self._truncate(step, source))
        self.tracking.start(step)

    def _truncate(self, step: int, source: Path) -> None:
        jsonl.replace(self.out / LOG, [record for record in read_log(source) if record["step"] <= step])
        bad = [record for record in jsonl.records(source / BAD_STEPS) if record["step"] <= step]
        if bad or (self.out / BAD_STEPS).is_file():
            jsonl.replace(self.out / BAD_STEPS, bad)
        if source != self.out and (skipped := jsonl.records(source / SKIPPED)):
            jsonl.replace(self.out / SKIPPED, skipped)

    def bad_step(self, bad: BadStep, before: int) -> None:
        """Say and list a bad step with the samples of all processes; all of them call it.

        Args:
            bad: the step.
            before: steps of the stages before.
        """
        record = {"step": before + bad.step, "skipped": bad.skipped, "fault": bad.fault}
        self.console.say(f"step {record['step']} {'is skipped' if bad.skipped else 'is taken'}: {bad.fault}")
        ids = self.world.gather(bad.ids)
        if self.world.main:
            self.lines.append(self.out / BAD_STEPS, [record | {"ids": ids}])

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record everywhere."""
        if self.world.main:
            self.lines.append(self.out / LOG, [record])
        self.tracking.log(record)
        self.console.status(status_line(record, self.steps))

    @contextmanager
    def stage(self, name: str, meter: Meter, *, steps: int, start: int, before: int) -> Iterator["StageLog"]:
        """Context of a stage, whose progress is shown.

        Args:
            name: of the stage.
            meter: of its steps.
            steps: of the stage.
            start: steps of the stage that are done.
            before: steps of the stages before.
        """
        self.console.begin(f"training {name}")
        with self.console.progress(name, steps, start) as show:
            yield StageLog(self, name, meter, TimeLeft(steps, start), before, show)


class StageLog:
    """Log of one stage; see `RunLog.stage`.

    Attributes:
        window: steps since the last record.
    """

    def __init__(self, log: RunLog, name: str, meter: Meter, clock: TimeLeft, before: int, show: Any) -> None:
        self._log, self._name, self._meter, self._clock, self._before = log, name, meter, clock, before
        self._show, self._speed = show, ""
        self.window = RecordWindow(log.world)

    def add(self, result: StepResult) -> None:
        """Note a step."""
        dropped = ((one.id, one.reason) for one in result.dropped)
        self.window.add(result.loss, result.norm, result.lr, result.skipped, dropped, result.tokens)
        self._show(result.step, f"{self._name} loss {result.loss:.3f}{self._speed}")

    def record(self, step: int) -> dict[str, Any]:
        """Return the record of the steps since the last one, up to `step`; all processes must call it.

        What depends on the machine stands in `measured`, so that the rest is the same in a run that is repeated.
        """
        measured = {}
        # A run that was stopped before its record has measured none of the steps.
        if step > self._clock.start:
            later = self._log.console.later
            # Without an estimate of the phases to come, the stages among them count with the steps of this one.
            following = 0 if later else self._log.steps - self._before - self._clock.total
            left = self._clock.seconds(step, following) + later
            measured = self._meter.record() | {"seconds_left": round(left)}
            if self._log.console.is_terminal:
                self._speed = f", {measured['tokens_per_second']:,.0f} tokens/s, {rounded(left)} left in all"
        place = {"step": self._before + step, "stage": self._name}
        return {**place, **self.window.take(), "measured": measured}
