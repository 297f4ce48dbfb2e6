"""Thread of one tracker."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from mmrnn.io.atomic import replace_file
from mmrnn.types import Tracker

START_SECONDS = 10.0
"""Longest wait for a tracker to start. What it imports should be there before a loader forks its workers."""

RESTART_SECONDS = 300.0
"""Time between two attempts to start a tracker."""


class TrackerThread:
    """Calls a tracker in a thread of its own. A failure is reported once, and lost records are counted.

    For a tracker that cannot rewind, a file in the folder of the run keeps its id there and the last step that it has.

    Args:
        name: of the tracker.
        tracker: to be called.
        folder: of the run.
        config: of the run.
        say: prints a failure.
    """

    def __init__(
        self, name: str, tracker: Tracker, folder: Path, config: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        self._name, self._tracker, self._folder, self._config, self._say = name, tracker, folder, config, say
        self._queue: SimpleQueue[tuple[int, Mapping[str, float]] | None] = SimpleQueue()
        self._running, self._failed, self._restart_at = False, False, 0.0
        self._lost, self._unsent = 0, 0
        self._tried = Event()
        self._thread = Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def start(self, step: int) -> None:
        """Start the tracker, and wait for it up to `START_SECONDS`; `step` steps of the run are done."""
        self._step = step
        self._thread.start()
        self._tried.wait(START_SECONDS)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values of a step, without waiting."""
        self._unsent += 1
        self._queue.put((step, values))

    def finish(self, seconds: float) -> None:
        """End the tracker, after the records that are still to be sent; give up after so many seconds."""
        self._queue.put(None)
        self._thread.join(seconds)
        if missing := self._lost + self._unsent:
            self._say(f"tracker {self._name}: {missing} records could not be sent; log.jsonl has all of them")
        elif self._thread.is_alive():
            self._say(f"tracker {self._name} has not finished after {seconds:.0f} s and is left")

    def _work(self) -> None:
        self._try(self._start)
        self._tried.set()
        while (item := self._queue.get()) is not None:
            if not self._running and time.monotonic() > self._restart_at:
                self._try(self._start)
            if not (self._running and self._try(self._send, *item)):
                self._lost += 1
            self._unsent -= 1
        if self._running:
            self._try(self._tracker.finish)

    def _start(self) -> None:
        self._restart_at = time.monotonic() + RESTART_SECONDS
        self._sent = _read(self._mark)
        self._known = self._sent["step"]
        if not self._tracker.rewinds:
            self._write()
        self._tracker.start(self._folder, self._config, id=self._sent["id"], step=self._step)
        self._running = True

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        if self._tracker.rewinds:
            self._tracker.log(step, values)
        elif step > self._known:
            self._tracker.log(step, values)
            self._sent["step"] = step
            self._write()

    @property
    def _mark(self) -> Path:
        return self._folder / f"tracker_{self._name}.json"

    def _write(self) -> None:
        text = json.dumps(self._sent)
        replace_file(self._mark, lambda path: path.write_text(text), len(text))

    def _try(self, call: Callable[..., None], *arguments: Any) -> bool:
        """Call a function of the tracker; False where it fails."""
        try:
            call(*arguments)
        # Whatever a service or its library raises: it must not reach the training.
        except Exception as error:
            if not self._failed:
                fault = f"{type(error).__name__}: {error}"
                self._say(f"tracker {self._name} failed, and training continues without it: {fault}")
            self._failed = True
            return False
        return True


def _read(path: Path) -> dict[str, Any]:
    """Id of a run at a tracker, and the last step that it has; a new id where there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.is_file():
        return {"id": uuid4().hex[:8], "step": 0}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"id": str(content["id"]), "step": int(content["step"])}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to begin a new run there") from None
