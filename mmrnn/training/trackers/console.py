"""Progress bars and tables on stderr."""

from collections.abc import Callable, Iterator, Mapping

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


class Console:
    """Lines, bars and tables on stderr; where that is no terminal, no bars."""

    def __init__(self, console: RichConsole | None = None) -> None:
        self.console = console or RichConsole(stderr=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def bar(self) -> Progress:
        """A bar to be used as a context: `add_task`, `update`."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def tracker(self, what: str) -> Callable[[range], Iterator[int]]:
        """Wraps the iteration over a range in a bar."""

        def track(steps: range) -> Iterator[int]:
            with self.bar() as bar:
                yield from bar.track(steps, description=what)

        return track

    def table(self, accuracy: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
        """Accuracy by split and kind of question, beside the baselines."""
        table = Table("held out", "question", "accuracy", "majority", "blind")
        for split, kinds in accuracy.items():
            for kind, row in kinds.items():
                shares = (f"{row[name]:.1%}" for name in ("accuracy", "majority", "blind"))
                table.add_row(split, kind, *shares)
            table.add_section()
        if accuracy:
            self.console.print(table)
