"""Trace of some steps of a run."""

import gzip
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from torch.profiler import profile

from mmrnn.io.atomic import replace_file

T = TypeVar("T")

TRACE = "trace.json.gz"


class StepProfiler:
    """Traces the steps `first` to `last` of a run by torch.profiler, for chrome://tracing or ui.perfetto.dev.

    It is a context; a run that ends in it leaves the trace of the steps until then.

    Args:
        steps: first and last step, counted from 1 over all stages; None: nothing is traced.
        folder: of the run, where `trace.json.gz` is written.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path) -> None:
        self._steps, self._folder = steps or (0, 0), folder
        self._profile: profile | None = None

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, *_) -> None:
        self.before(0)

    def watch(self, results: Iterator[T], first: int) -> Iterator[T]:
        """Iterate over the results of steps; `first` is the number of the first one."""
        self.before(first)
        for number, result in enumerate(results, first + 1):
            yield result
            self.before(number)

    def before(self, step: int) -> None:
        """Begin or end the trace, where that is due before a step."""
        first, last = self._steps
        inside = 0 < first <= step <= last
        if inside and self._profile is None:
            self._profile = profile()  # of all that torch can trace here
            self._profile.start()
        elif not inside and self._profile is not None:
            found, self._profile = self._profile, None
            found.stop()
            replace_file(self._folder / TRACE, lambda path: _write(found, path))


def _write(found: profile, path: Path) -> None:
    with TemporaryDirectory() as folder, ExitStack() as stack:
        raw = Path(folder) / "trace.json"
        found.export_chrome_trace(str(raw))
        source = stack.enter_context(raw.open("rb"))
        shutil.copyfileobj(source, stack.enter_context(gzip.open(path, "wb")))
