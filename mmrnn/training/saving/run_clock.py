"""Time that a run has taken over all attempts at it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

from mmrnn.io.atomic import replace_file
from mmrnn.io.disk import DiskFullError

CLOCK = "seconds.txt"


class RunClock:
    """Seconds of all attempts at a run: a context in which its folder is told the time every few seconds.

    A killed attempt counts up to the last time that it wrote.

    Args:
        out: folder of the run.
        anew: earlier attempts do not count.
        writes: keep the file; one process of a run does.
        every: seconds between two times.
        clock: seconds.

    Raises:
        ValueError: the file of an earlier attempt is damaged.
    """

    def __init__(
        self,
        out: Path,
        *,
        anew: bool = False,
        writes: bool = True,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._writes, self._every, self._clock = out / CLOCK, writes, every, clock
        self._before = 0.0 if anew else _read(self._path)
        self._began = clock()
        self._ended = Event()
        self._writer = Thread(target=self._write_often, name="clock of the run", daemon=True)

    @property
    def seconds(self) -> float:
        """Seconds of all attempts until now."""
        return self._before + self._clock() - self._began

    def __enter__(self) -> "RunClock":
        if self._writes:
            self._write()
            self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._writes:
            return
        self._ended.set()
        self._writer.join()
        if kind is None:
            self._path.unlink(missing_ok=True)  # the result has it
        else:
            self._write()

    def _write_often(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _write(self) -> None:
        text = f"{self.seconds:.3f}\n"
        # The run itself says so where the disk is full.
        with suppress(DiskFullError):
            replace_file(self._path, lambda path: path.write_text(text), len(text))


def _read(path: Path) -> float:
    if not path.is_file():
        return 0.0
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not text.replace(".", "", 1).isdecimal() or not text.isascii():
        raise ValueError(f"{path} is damaged: expected the seconds of the run, got {text[:40]!r}; delete it")
    return float(text)
