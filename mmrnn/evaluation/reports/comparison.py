"""Comparison of runs: the settings that differ, and the results."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from mmrnn.config.sweep_plan import label
from mmrnn.config.tree import leaves
from mmrnn.evaluation.reports.run_folder import FAILURE, LOG, RESULT, read_log, read_result, unfinished_reason
from mmrnn.evaluation.reports.run_report import STYLE
from mmrnn.evaluation.reports.section import Section, html_table, markdown_table
from mmrnn.evaluation.reports.svg import bars
from mmrnn.evaluation.reports.sweep_file import read_plan
from mmrnn.evaluation.reports.task_results import TASKS
from mmrnn.evaluation.tasks.answer_lines import SETTINGS
from mmrnn.io.atomic import replace_file
from mmrnn.io.lock import LOCK

MARKS = {LOG, RESULT, FAILURE, LOCK}
"""Names of which a folder of a run holds one at least, from its first second on."""

POLICY = (
    "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
"""A page runs no script and loads nothing, whatever the replies in it hold."""

UNTRAINED: Mapping[str, Any] = {"config": {}, "choices": {}, "accuracy": {}}

FIGURES = {"parameters": "{:,}", "seconds": "{:.0f}", "loss": "{:.3f}"}
"""Figures of a result in the table, with their format."""


@dataclass(frozen=True)
class FinishedRun:
    """Folder and result (`result.json`) of a finished run; `note`: a fault of its other files.

    The result of an evaluated model that was not trained here is `UNTRAINED`.
    """

    folder: Path
    result: Mapping[str, Any]
    note: str = ""


@dataclass(frozen=True)
class UnfinishedRun:
    """Folder of a run without a result, and the reason in words."""

    folder: Path
    reason: str


def find_runs(folder: str | Path) -> tuple[list[FinishedRun], list[UnfinishedRun]]:
    """Return the finished runs in a folder and below it, and the unfinished ones.

    A model that was evaluated and not trained here is a finished run without settings.

    Raises:
        ValueError: the folder holds no run.
    """
    finished, unfinished = [], []
    found: dict[Path, bool] = {}  # folder -> whether a run trained there
    for root, folders, files in os.walk(folder):
        path = Path(root)
        if SETTINGS in files:  # a task, beside others of the same model
            found.setdefault(path.parent.parent if path.parent.name == TASKS else path.parent, False)
            folders.clear()
        elif MARKS & {*folders, *files}:
            found[path] = True
            folders[:] = [name for name in folders if name != TASKS]  # a task has a `result.json` of its own
    jobs = _planned_jobs(found)
    for run in sorted(found, key=lambda path: _order(path, jobs)):
        if not found[run]:
            finished.append(FinishedRun(run, UNTRAINED))
            continue
        if not (run / RESULT).is_file():
            words = [jobs[path][1] for path in (run, run.parent) if path in jobs]
            unfinished.append(UnfinishedRun(run, " ".join([unfinished_reason(run), *(f"({one})" for one in words)])))
            continue
        try:
            result = read_result(run)
        except (OSError, ValueError) as fault:
            unfinished.append(UnfinishedRun(run, str(fault)))
            continue
        finished.append(FinishedRun(run, result, _log_fault(run)))
    if not found:
        raise ValueError(f"{folder} holds no run; name a folder that `mmrnn train` or `mmrnn eval` has written")
    return finished, unfinished


def _planned_jobs(runs: Collection[Path]) -> dict[Path, tuple[int, str]]:
    """Folder of every planned job of the sweeps that runs belong to -> its place in the sweep, and its label."""
    roots = {root for run in runs for root in (run.parent, run.parent.parent)}  # a stage of a recipe is one deeper
    plans = {root: plan for root in roots if (plan := read_plan(root)) is not None}
    return {
        root / name: (place, label(overrides, plan.grid))
        for root, plan in plans.items()
        for place, (name, overrides) in enumerate(plan.jobs.items())
    }


def _order(run: Path, jobs: Mapping[Path, tuple[int, str]]) -> list[tuple[int, str]]:
    """Sort key: jobs of a sweep in its order, others by their names."""
    path = [*reversed(run.parents), run]
    return [(jobs[one][0], "") if one in jobs else _number(one.name) for one in path]


def _log_fault(folder: Path) -> str:
    try:
        read_log(folder)
    except (OSError, ValueError) as fault:
        return str(fault)
    return ""


def table(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: settings that differ, then size, time, loss, and accuracy of each split."""
    chosen, settings = _settings(runs)
    splits = list(dict.fromkeys(split for run in runs for split in run.result["accuracy"]))
    rows = []
    for run, cells in zip(runs, settings, strict=True):
        figures = [form.format(run.result[name]) if name in run.result else "" for name, form in FIGURES.items()]
        shares = [f"{share:.1%}" if (share := average(run, split)) is not None else "" for split in splits]
        rows.append([*cells, *figures, *shares])
    columns = [*chosen, *FIGURES, *splits]
    if any(run.result is UNTRAINED for run in runs):
        return ["run", *columns], [[str(run.folder), *row] for run, row in zip(runs, rows, strict=True)]
    return columns, rows


def average(run: FinishedRun, split: str) -> float | None:
    """Return the mean accuracy over the kinds of question of a split; None: the run has no such split."""
    kinds = run.result["accuracy"].get(split)
    return sum(row["accuracy"] for row in kinds.values()) / len(kinds) if kinds else None


def names(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the settings by which every run differs from the others, with its folder where others have the same."""
    chosen, cells = _settings(runs)
    settings = [" ".join(f"{key}={cell}" for key, cell in zip(chosen, row, strict=True) if cell) for row in cells]
    return [
        setting if setting and settings.count(setting) == 1 else f"{setting} {run.folder}".strip()
        for setting, run in zip(settings, runs, strict=True)
    ]


def write_comparison(
    folder: Path,
    runs: Sequence[FinishedRun],
    unfinished: Sequence[UnfinishedRun] = (),
    sections: Sequence[Section] = (),
) -> Path:
    """Write `comparison.html` (tables and bars) and `comparison.md` into a folder.

    Args:
        folder: for both files.
        runs: of the table; none: there is no table.
        unfinished: that are listed, with the reason.
        sections: between the table and the unfinished runs.

    Returns:
        Path of the page.
    """
    columns, rows = table(runs)
    named = [*zip(names(runs), runs, strict=True)]
    splits = dict.fromkeys(split for run in runs for split in run.result["accuracy"])
    images = ""
    for split in splits:
        shares = {name: share for name, run in named if (share := average(run, split)) is not None}
        images += f"<p>{bars(split, shares)}"
    page = (
        f'<!doctype html><meta charset="utf-8">{POLICY}<title>runs</title><style>{STYLE} svg {{ width: 100% }}</style>'
    )
    page += f"<h1>{escape(folder.name)}</h1>{html_table(columns, rows) if rows else ''}{images}"
    page += "".join(section.html() for section in sections)
    rest = [f"{run.folder}: {run.reason}" for run in unfinished]
    page += "<h2>Not finished</h2><ul>" + "".join(f"<li>{escape(line)}" for line in rest) + "</ul>" if rest else ""
    text = (markdown_table(columns, rows) if rows else "") + "".join(section.markdown() for section in sections)
    text += "\nNot finished:\n\n" + "".join(f"- {' '.join(line.split())}\n" for line in rest) if rest else ""
    for name, content in (("comparison.md", text), ("comparison.html", page)):
        encoded = content.encode("utf-8", "xmlcharrefreplace")  # a reply can hold half of a surrogate pair
        replace_file(folder / name, partial(Path.write_bytes, data=encoded))
    return folder / "comparison.html"


def _settings(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[str]]]:
    """Settings that differ between trained runs, and their values for every run."""
    settings = [dict(leaves(run.result["config"])) for run in runs]
    trained = [setting for setting in settings if setting]
    keys = dict.fromkeys(key for setting in trained for key in setting)
    differing = [key for key in keys if len({str(setting.get(key)) for setting in trained}) > 1]
    chosen = _choices([run for run, setting in zip(runs, settings, strict=True) if setting], differing)
    values = [{**setting, **run.result["choices"]} for run, setting in zip(runs, settings, strict=True)]
    return chosen, [[str(value.get(key, "")) for key in chosen] for value in values]


def _choices(runs: Sequence[FinishedRun], differing: Sequence[str]) -> list[str]:
    """Settings that differ; a group whose card differs replaces its knobs."""
    groups = dict.fromkeys(group for run in runs for group in run.result["choices"])
    chosen = [group for group in groups if len({run.result["choices"].get(group) for run in runs}) > 1]
    covered = {
        "choices",
        "feature_folder",
        *chosen,
        *(["encoder", "connector", "backbone"] if "model" in chosen else []),
    }
    return [*chosen, *(key for key in differing if key.split(".")[0] not in covered)]


def _number(part: str) -> tuple[int, str]:
    """Sort key by which job 10 comes after job 9."""
    return (int(part), "") if part.isdecimal() else (-1, part)
