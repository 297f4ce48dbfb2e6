"""Trackers of a run: neither their failures nor their waiting reach the training."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrnn.training.trackers.choice import SeveralTrackers
from mmrnn.training.trackers.tracker_thread import TrackerThread
from mmrnn.types import Tracker

FINISH_SECONDS = 30.0
"""Longest wait at the end of a run for records that are still to be sent."""


class Tracking:
    """Sends the records of a run to its trackers."""

    def __init__(self, threads: list[TrackerThread]) -> None:
        self._threads, self._started = threads, False

    def start(self, step: int) -> None:
        """Start the trackers; `step` steps of the run are done."""
        for thread in self._threads:
            thread.start(step)
        self._started = True

    def log(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of a record of the log, without waiting."""
        values = numbers(record)
        for thread in self._threads:
            thread.log(record["step"], values)

    def finish(self) -> None:
        """End the trackers, after what is still to be sent; give up after `FINISH_SECONDS`."""
        end = time.monotonic() + FINISH_SECONDS
        for thread in self._threads if self._started else ():
            thread.finish(max(0.0, end - time.monotonic()))


@contextmanager
def track(tracker: Tracker, folder: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> Iterator[Tracking]:
    """Context of the trackers of a run, which end with it.

    Args:
        tracker: one, or `SeveralTrackers`.
        folder: of the run.
        config: of the run.
        say: prints a failure.
    """
    several = isinstance(tracker, SeveralTrackers)
    trackers = tracker.trackers if several else {type(tracker).__name__.lower(): tracker}
    tracking = Tracking([TrackerThread(name, one, folder, config, say) for name, one in trackers.items()])
    try:
        yield tracking
    finally:
        tracking.finish()


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a record except its step; those of a mapping in it are named `NAME/KEY`."""
    found = {}
    for name, value in record.items():
        inside = value.items() if isinstance(value, Mapping) else ()
        for path, number in ((name, value), *((f"{name}/{key}", item) for key, item in inside)):
            if isinstance(number, int | float) and path != "step":
                found[path] = float(number)
    return found
