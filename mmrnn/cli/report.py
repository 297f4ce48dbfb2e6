"""`mmrnn report`: compare finished runs."""

from collections.abc import Sequence
from pathlib import Path

from mmrnn.cli.options import Parser, to_path
from mmrnn.config.error import ConfigError

MAX_WIDTH = 240
"""Columns of a table in a file or a pipe."""


def parser() -> Parser:
    """Parser of `mmrnn report`."""
    made = Parser(
        "report",
        "[DIR ...] [OPTION ...]",
        "Compare the finished runs in some folders: print their results, the differences with 95 % intervals and the\n"
        "spread over seeds; write a page with tables and charts into the first folder.",
        "  mmrnn report\n  mmrnn report multirun/2026-01-31_12-00-00 --baseline multirun/2026-01-31_12-00-00/2",
    )
    made.add_argument(
        "folders",
        nargs="*",
        default=[],
        type=to_path,
        metavar="DIR",
        help="folders of runs, or of models that `mmrnn eval` was given (default: the newest in multirun/)",
    )
    made.add_argument(
        "--baseline",
        type=to_path,
        metavar="RUN",
        help="folder of the run that the others are compared with (default: the first)",
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Print the table, write the page.

    Raises:
        ConfigError: wrong usage, or nothing to compare.
    """
    options = parser().parse(arguments)
    folders = options.folders or [_newest()]

    from mmrnn.evaluation.reports.certainty import certainty
    from mmrnn.evaluation.reports.comparison import find_runs, table, write_comparison

    finished, unfinished = [], []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: there is no such folder; name one that `mmrnn train` or `mmrnn eval` has written"
            )
        try:
            done, others = find_runs(folder)
        except ValueError as fault:
            raise ConfigError(str(fault)) from fault
        finished += done
        unfinished += others
    for run in unfinished:
        print(_printable(f"not finished: {run.folder}: {run.reason}"))
    for run in finished:
        if run.note:
            print(_printable(f"note: {run.note}"))
    if not finished:
        raise ConfigError("none of these runs is finished")

    baseline = _baseline(options.baseline, [run.folder for run in finished])
    _print("", *table(finished))
    sections = certainty(finished, baseline)
    for section in sections:
        _print(section.title, section.columns, section.rows)
        print(*map(_printable, section.notes), sep="\n")
    print(write_comparison(folders[0], finished, unfinished, sections))


def _baseline(wanted: Path | None, folders: Sequence[Path]) -> int:
    """Number of the run that the others are compared with.

    Raises:
        ConfigError: it is none of them.
    """
    if wanted is None:
        return 0
    resolved = [folder.resolve() for folder in folders]
    if wanted.resolve() not in resolved:
        raise ConfigError(f"--baseline {wanted} is none of the finished runs: {', '.join(map(str, folders))}")
    return resolved.index(wanted.resolve())


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    shown = Table(title=escape(_printable(title)) or None)
    for column in columns:
        shown.add_column(escape(column), overflow="fold")
    for row in rows:
        shown.add_row(*(escape(_printable(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = max(console.width, MAX_WIDTH)
    console.print(shown)


def _printable(text: str) -> str:
    """Text from the files of a run without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _newest() -> Path:
    sweeps = sorted(Path("multirun").glob("*/"), key=lambda path: path.stat().st_mtime)
    if not sweeps:
        raise ConfigError("there is no sweep in multirun/; run one (`mmrnn train -m ...`) or name folders")
    return sweeps[-1]
