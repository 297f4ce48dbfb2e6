"""Signals that end a run: its step is finished, a checkpoint is saved, and the process ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_start_method, parent_process
from types import FrameType, TracebackType
from typing import Any, TypeVar

from mmrnn.io.signals import stop_signals

T = TypeVar("T")


_idle = threading.Event()
"""Set in a worker process between its jobs."""


class StoppedRun(KeyboardInterrupt):
    """A signal has stopped the run.

    Attributes:
        number: of the signal.
        code: exit code of the process: 130 for SIGINT, else 143, that of SIGTERM.
    """

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{detail}")
        self.number = number
        # What asks a job to end asks it to be started again, by whatever signal: requeueing scripts look for one code.
        self.code = 128 + (number if number == signal.SIGINT else signal.SIGTERM)


class StopSignals:
    """Context in which a signal is noted, and the run decides when it ends; a second one ends the process at once.

    In a thread other than the main one, which cannot handle signals, nothing is noted. The end of the parent of a
    worker process is a SIGTERM.
    """

    def __init__(self) -> None:
        self._received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not installed by Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    @property
    def received(self) -> int:
        """Number of the signal; 0: none."""
        return self._received or (signal.SIGTERM if is_orphan() else 0)

    def check(self) -> None:
        """End the run where a signal was received; for work that is not done by all ranks in step.

        Raises:
            StoppedRun: a signal was received.
        """
        if number := self.received:
            raise StoppedRun(number)

    def checked(self, track: Callable[[Iterable[T]], Iterable[T]]) -> Callable[[Iterable[T]], Iterator[T]]:
        """Wrap an iteration, so that a signal ends it before its next item."""

        def iterate(items: Iterable[T]) -> Iterator[T]:
            for item in track(items):
                self.check()
                yield item

        return iterate

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._received:
            os._exit(128 + number)
        self._received = number


def is_orphan() -> bool:
    """Return True in a worker process whose parent has ended, such as one of joblib (POSIX alone).

    What Slurm starts is no worker of the command that has submitted it. Of the children of a fork server it is not
    known: their parent for the system is that server.
    """
    # Not `is_alive()` of the parent, which needs a handle on it that joblib's loky does not hand over.
    parent = parent_process()
    return parent is not None and get_start_method(allow_none=True) != "forkserver" and os.getppid() != parent.pid


@contextmanager
def exit_as_orphan() -> Iterator[None]:
    """Context of a job: a worker process whose parent has ended exits before it, after it, or while it has no job.

    What hands out the jobs (joblib's loky) would start the next one, or wait for it without end.
    """
    if parent_process() is None:
        yield
        return
    _start_watch()
    _idle.clear()
    _exit_if_orphan()
    try:
        yield
    finally:
        _exit_if_orphan()
        _idle.set()


@cache
def _start_watch() -> None:
    threading.Thread(target=_watch, name="end of the parent", daemon=True).start()


def _watch() -> None:
    while _idle.wait():
        _exit_if_orphan()
        time.sleep(1.0)


def _exit_if_orphan() -> None:
    if is_orphan():
        os._exit(128 + signal.SIGTERM)
