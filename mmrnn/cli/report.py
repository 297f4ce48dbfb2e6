"""`mmrnn report`: compare finished runs."""

from collections.abc import Sequence
from pathlib import Path

from mmrnn.cli.options import Parser, to_path
from mmrnn.config.error import ConfigError


def parser() -> Parser:
    """Parser of `mmrnn report`."""
    made = Parser(
        "report",
        "[DIR ...] [OPTION ...]",
        "Compare the finished runs in some folders: print a table, write a page with table and chart into the first.",
        "  mmrnn report\n  mmrnn report multirun/2026-01-31_12-00-00",
    )
    made.add_argument(
        "folders",
        nargs="*",
        default=[],
        type=to_path,
        metavar="DIR",
        help="folders of runs (default: the newest in multirun/)",
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Print the table, write the page.

    Raises:
        ConfigError: wrong usage, or nothing to compare.
    """
    folders = parser().parse(arguments).folders or [_newest()]

    from mmrnn.evaluation.reports.comparison import find_runs, table, write_comparison

    finished, unfinished = [], []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder; name one that `mmrnn train` has written")
        try:
            done, others = find_runs(folder)
        except ValueError as fault:
            raise ConfigError(str(fault)) from fault
        finished += done
        unfinished += others
    for run in unfinished:
        print(f"not finished: {run.folder}: {run.reason}")
    for run in finished:
        if run.note:
            print(f"note: {run.note}")
    if not finished:
        raise ConfigError("none of these runs is finished")

    from rich.console import Console
    from rich.table import Table

    columns, rows = table(finished)
    shown = Table(*columns)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    print(write_comparison(folders[0], finished, unfinished))


def _newest() -> Path:
    sweeps = sorted(Path("multirun").glob("*/"), key=lambda path: path.stat().st_mtime)
    if not sweeps:
        raise ConfigError("there is no sweep in multirun/; run one (`mmrnn train -m ...`) or name folders")
    return sweeps[-1]
