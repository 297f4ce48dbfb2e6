"""`mmrnn report`: compare finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.options import Parser, to_path
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from mmrnn.evaluation.reports.section import Section

MAX_WIDTH = 240
"""Columns of a table in a file or a pipe."""


def parser() -> Parser:
    """Parser of `mmrnn report`."""
    made = Parser(
        "report",
        "[DIR ...] [OPTION ...]",
        "Compare the finished runs in some folders, and write a page with tables and charts into the first one. Of a\n"
        "sweep with several seeds: the mean of every design and the contrasts of its file, with 95 % intervals over\n"
        "seeds and images. Of other runs: their results, differences with 95 % intervals, and the spread over seeds.",
        "  mmrnn report\n  mmrnn report multirun/2026-01-31_12-00-00 --baseline multirun/2026-01-31_12-00-00/2\n"
        "  mmrnn report evidence --page docs/evidence.md",
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
    made.add_argument("--runs", action="store_true", help="also show the single runs of a sweep, and compare them")
    made.add_argument(
        "--page",
        type=to_path,
        metavar="FILE",
        help="write a page of evidence instead, from questions.yaml and the results of `mmrnn sweep store` in DIR",
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Print the table, write the page.

    Raises:
        ConfigError: wrong usage, or nothing to compare.
    """
    options = parser().parse(arguments)
    if options.page is not None:
        _write_page(options.folders, options.page, alone=not (options.runs or options.baseline))
        return
    folders = options.folders or [_newest()]

    from mmrnn.evaluation.reports.certainty import certainty
    from mmrnn.evaluation.reports.comparison import FIGURES, find_runs, table, write_comparison

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
    folded, sections = _sweeps(folders)
    if not (options.runs or options.baseline):
        finished = [run for run in finished if not {*folded} & {run.folder, *run.folder.parents}]
    if finished:
        columns, rows = table(finished)
        _print("", columns, rows, keys=columns.index(next(iter(FIGURES))))
        sections = [*sections, *certainty(finished, baseline)]
    for section in sections:
        _print(section.title, section.columns, section.rows)
        print(*map(_printable, section.notes), sep="\n")
    print(write_comparison(folders[0], finished, unfinished, sections))


def _write_page(folders: Sequence[Path], page: Path, alone: bool) -> None:
    """Write the page of evidence.

    Raises:
        ConfigError: wrong usage, or a file is damaged.
    """
    from mmrnn.evaluation.sweeps.evidence_page import evidence_page
    from mmrnn.io.atomic import replace_file

    if len(folders) != 1 or not folders[0].is_dir() or not alone:
        raise ConfigError(
            "--page takes one folder of stored results, and no other option: `mmrnn report evidence --page FILE`"
        )
    try:
        text = evidence_page(folders[0])
    except ImportError as fault:
        raise ConfigError(str(fault)) from fault
    replace_file(page, lambda new: new.write_text(text, encoding="utf-8"))
    print(page)


def _sweeps(folders: Sequence[Path]) -> tuple[list[Path], list["Section"]]:
    """Folders of sweeps that have several seeds, and the sections on them; their tables are written, too.

    Raises:
        ConfigError: a file of a sweep is damaged.
    """
    from mmrnn.evaluation.reports.sweep_file import read_plan
    from mmrnn.evaluation.sweeps.fold import fold_sweep
    from mmrnn.evaluation.sweeps.report import analyse, sweep_sections, write_tables

    folded: list[Path] = []
    sections: list[Section] = []
    for folder in folders:
        if (plan := read_plan(folder)) is None:
            continue
        try:
            fold = fold_sweep(folder, plan)
        except ImportError as fault:
            print(f"note: {folder}: seeds are not folded: {fault}")
            continue
        except ValueError as fault:
            raise ConfigError(str(fault)) from fault
        if fold.has_seeds:
            results = analyse(fold)
            folded.append(folder)
            sections += sweep_sections(folder.name, fold, results)
            print(*write_tables(folder, results), sep="\n")
    return folded, sections


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


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], keys: int = 1) -> None:
    """Print a table; a wide one in blocks of columns, each behind the first `keys` columns."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no edge to fold at
        console.width = max(console.width, MAX_WIDTH)
    rows = [[_printable(cell) for cell in row] for row in rows]
    for block in _blocks([max(map(len, cells)) for cells in zip(columns, *rows, strict=True)], keys, console.width):
        shown = Table(title=escape(_printable(title)) or None)
        for column in block:
            shown.add_column(escape(columns[column]), overflow="fold")
        for row in rows:
            shown.add_row(*(escape(row[column]) for column in block))
        console.print(shown)


def _blocks(widths: Sequence[int], keys: int, most: int) -> list[list[int]]:
    """Columns of every block of a table, where each is as wide as its longest cell and three characters more."""
    key = [*range(min(keys, len(widths) - 1))]
    blocks: list[list[int]] = []
    for column in range(len(key), len(widths)):
        if not blocks or sum(widths[one] + 3 for one in [*blocks[-1], column]) >= most:
            blocks.append([*key])
        blocks[-1].append(column)
    return blocks


def _printable(text: str) -> str:
    """Text from the files of a run without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _newest() -> Path:
    sweeps = sorted(Path("multirun").glob("*/"), key=lambda path: path.stat().st_mtime)
    if not sweeps:
        raise ConfigError("there is no sweep in multirun/; run one (`mmrnn train -m ...`) or name folders")
    return sweeps[-1]
