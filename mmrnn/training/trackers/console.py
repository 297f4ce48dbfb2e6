"""Progress bars and tables on stderr."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

FIRST_LINE, NEXT_LINE, SLOWER = 10.0, 30.0, 0.1
"""Seconds before the first line and the next ones; least share of the elapsed time between two lines of a long run."""


class TimeLeft:
    """Time left of a loop, by the mean duration of its steps so far."""

    def __init__(self, total: int, completed: int = 0) -> None:
        self.total, self.start = total, completed
        self.began = time.monotonic()

    def seconds(self, completed: int, more: int = 0) -> float:
        """Return the seconds that the steps after `completed` will take; at least one step must have been taken.

        Args:
            completed: steps that are done.
            more: steps that follow the loop and take as long.
        """
        return (time.monotonic() - self.began) / (completed - self.start) * (self.total - completed + more)


class _Lines:
    """Lines of progress with the time left, the fewer the longer it takes."""

    def __init__(self, say: Callable[[str], None], total: int, completed: int, later: float) -> None:
        self.say, self.clock, self.later = say, TimeLeft(total, completed), later
        self.due = self.clock.began + FIRST_LINE

    def show(self, completed: int, what: str) -> None:
        clock = self.clock
        if time.monotonic() < self.due or completed >= clock.total or completed <= clock.start:
            return
        left = clock.seconds(completed)
        whole = f", {rounded(left + self.later)} of the whole run" if self.later else ""
        self.say(f"{what}: {completed:,} of {clock.total:,}, {rounded(left)} left{whole}")
        self.postpone()

    def postpone(self) -> None:
        now = time.monotonic()
        self.due = now + max(NEXT_LINE, SLOWER * (now - self.clock.began))


def rounded(seconds: float | int) -> timedelta:
    """Return a duration in whole seconds, which prints as `1:05:20`."""
    return timedelta(seconds=round(seconds))


class Console:
    """Lines, bars and tables on stderr; where that is no terminal, or others write to it, lines in place of bars.

    Args:
        console: of rich; None: stderr.
        quiet: show nothing.
        label: begins every line and stands above a table, where several jobs write to one terminal.

    Attributes:
        later: seconds that the phases of a run will take which follow the one that is shown; lines show them, too.
    """

    def __init__(self, console: RichConsole | None = None, *, quiet: bool = False, label: str = "") -> None:
        self.console, self.later = console or RichConsole(stderr=True, quiet=quiet), 0.0
        self.label = label
        self._phases: dict[str, float] = {}
        self._lines: _Lines | None = None

    def plan(self, phases: Mapping[str, float]) -> None:
        """Print how long a run will take.

        Args:
            phases: estimated seconds of each phase, in order.
        """
        self._phases = dict(phases)
        parts = ", ".join(f"{name} {rounded(seconds)}" for name, seconds in phases.items() if seconds >= 0.5)
        self.say(f"about {rounded(sum(phases.values()))} in all ({parts})")

    def begin(self, phase: str) -> None:
        """Note that a planned phase begins."""
        names = [*self._phases]
        self.later = sum(self._phases[name] for name in names[names.index(phase) + 1 :]) if names else 0.0

    def say(self, text: str) -> None:
        """Print a line."""
        line = f"{self.label}: {text}" if self.label else text
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """True where bars are shown."""
        return self.console.is_terminal and not self.label

    def status(self, text: str) -> None:
        """Print a line of a loop where there is no bar, in place of the next one that `progress` would print."""
        if not self.is_terminal:
            self.say(text)
            if self._lines is not None:
                self._lines.postpone()

    @contextmanager
    def progress(self, what: str, total: int, completed: int = 0) -> Iterator[Callable[[int, str], None]]:
        """Context of `show(completed, what)`: a bar with the time left; where there are no bars, a line now and then.

        Args:
            what: is done, until `show` says it anew.
            total: number of its steps.
            completed: steps that were done before.
        """
        if not self.is_terminal:
            outer, self._lines = self._lines, _Lines(self.say, total, completed, self.later)
            yield self._lines.show
            self._lines = outer
            return
        with self._bar() as bar:
            task = bar.add_task(what, total=total, completed=completed)
            yield lambda done, text: bar.update(task, completed=done, description=text)

    def tracker(self, what: str) -> Callable[[range], Iterator[int]]:
        """Return a wrapper of the iteration over a range, which shows a bar, or lines."""

        def track(steps: range) -> Iterator[int]:
            with self.progress(what, len(steps)) as show:
                for done, step in enumerate(steps, 1):
                    yield step
                    show(done, what)

        return track

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )

    def table(self, accuracy: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Print accuracy by split and kind of question, beside the baselines."""
        title = Text(self.label) if self.label else None
        table = Table("held out", "question", "accuracy", "chance", "majority", "blind", title=title)
        for split, kinds in accuracy.items():
            for kind, row in kinds.items():
                shares = (f"{row[name]:.1%}" for name in ("accuracy", "chance", "majority", "blind"))
                table.add_row(split, kind, *shares)
            table.add_section()
        if accuracy:
            self.console.print(table)
