"""Log of a run: records into `log.jsonl`, to the trackers and to the console."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrnn.data.left_out import LeftOut
from mmrnn.evaluation.reports.run_folder import LOG, read_log
from mmrnn.io import jsonl
from mmrnn.training.distributed.world import World
from mmrnn.training.metrics import Meter
from mmrnn.training.optimize import StepResult
from mmrnn.training.trackers.console import Console, TimeLeft, rounded
from mmrnn.training.trackers.status_line import status_line
from mmrnn.training.trackers.tracking import Tracking


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

    def start(self, step: int) -> None:
        """Drop the records after so many steps, which will be written again, and start the trackers.

        Raises:
            ValueError: the log is damaged; the message names file and line.
        """
        self.world.on_main(lambda: self._truncate(step))
        self.tracking.start(step)

    def _truncate(self, step: int) -> None:
        jsonl.replace(self.out / LOG, [record for record in read_log(self.out) if record["step"] <= step])

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record everywhere."""
        if self.world.main:
            jsonl.append(self.out / LOG, dict(record))
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
    """Log of one stage; see `RunLog.stage`."""

    def __init__(self, log: RunLog, name: str, meter: Meter, clock: TimeLeft, before: int, show: Any) -> None:
        self._log, self._name, self._meter, self._clock, self._before = log, name, meter, clock, before
        self._show, self._speed = show, ""
        self._results: list[StepResult] = []

    def add(self, result: StepResult) -> None:
        """Note a step."""
        self._results.append(result)
        self._show(result.step, f"{self._name} loss {result.loss:.3f}{self._speed}")

    def record(self) -> dict[str, Any]:
        """Return the record of the steps since the last one; all processes must call it.

        What depends on the machine stands in `measured`, so that the rest is the same in a run that is repeated.
        """
        results, last = self._results, self._results[-1]
        dropped = LeftOut.of((one.id, one.reason) for result in results for one in result.dropped)
        left = self._clock.seconds(last.step) + self._log.console.later
        measured = self._meter.record() | {"seconds_left": round(left)}
        self._speed = f", {measured['tokens_per_second']:,.0f} tokens/s, {rounded(left)} left in all"
        self._results = []
        return {
            "step": self._before + last.step,
            "stage": self._name,
            "loss": sum(result.loss for result in results) / len(results),
            "grad_norm": sum(result.norm for result in results) / len(results),
            "lr": last.lr,
            "skipped_steps": sum(result.skipped for result in results),
            "dropped": LeftOut.merge(self._log.world.gather(dropped.record())).record(),
            "measured": measured,
        }
