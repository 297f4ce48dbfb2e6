"""Comparison of runs: the settings that differ, and the results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from mmrnn.config.tree import leaves
from mmrnn.evaluation.reports.run_report import STYLE
from mmrnn.evaluation.reports.svg import bars
from mmrnn.io.atomic import replace_file


@dataclass(frozen=True)
class FinishedRun:
    """Folder and result (`result.json`) of a finished run."""

    folder: Path
    result: Mapping[str, Any]


def find_runs(folder: str | Path) -> tuple[list[FinishedRun], list[Path]]:
    """Return the finished runs in a folder and below it, and the folders of unfinished ones.

    Raises:
        ValueError: the folder holds no run.
    """
    finished, unfinished = [], []
    for log in sorted(Path(folder).rglob("log.jsonl"), key=lambda path: [_number(part) for part in path.parts]):
        result = log.parent / "result.json"
        if result.is_file():
            finished.append(FinishedRun(log.parent, json.loads(result.read_text(encoding="utf-8"))))
        else:
            unfinished.append(log.parent)
    if not finished and not unfinished:
        raise ValueError(f"{folder} holds no run; name a folder that `mmrnn train` has written")
    return finished, unfinished


def table(runs: Sequence[FinishedRun]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: settings that differ, then size, time, loss, and accuracy of each split."""
    settings = [dict(leaves(run.result["config"])) for run in runs]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    differing = [key for key in keys if len({str(setting.get(key)) for setting in settings}) > 1]
    chosen = _choices(runs, differing)
    splits = list(dict.fromkeys(split for run in runs for split in run.result["accuracy"]))
    columns = [*chosen, "parameters", "seconds", "loss", *splits]
    rows = []
    for run, setting in zip(runs, settings, strict=True):
        named = {**setting, **run.result["choices"]}
        cells = [str(named.get(key, "")) for key in chosen]
        cells += [f"{run.result['parameters']:,}", f"{run.result['seconds']:.0f}", f"{run.result['loss']:.3f}"]
        cells += [f"{share:.1%}" if (share := average(run, split)) is not None else "" for split in splits]
        rows.append(cells)
    return columns, rows


def average(run: FinishedRun, split: str) -> float | None:
    """Return the mean accuracy over the kinds of question of a split; None: the run has no such split."""
    kinds = run.result["accuracy"].get(split)
    return sum(row["accuracy"] for row in kinds.values()) / len(kinds) if kinds else None


def write_comparison(folder: Path, runs: Sequence[FinishedRun]) -> Path:
    """Write `comparison.html` (table and bars) and `comparison.md` into a folder.

    Returns:
        Path of the page.
    """
    columns, rows = table(runs)
    first = columns.index("parameters")
    names = [" ".join(f"{key}={cell}" for key, cell in zip(columns[:first], row, strict=False)) for row in rows]
    splits = dict.fromkeys(split for run in runs for split in run.result["accuracy"])
    images = "".join(
        f"<p>{bars(split, {name: average(run, split) or 0.0 for name, run in zip(names, runs, strict=True)})}"
        for split in splits
    )
    head = "".join(f"<th>{escape(column)}" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    page = f'<!doctype html><meta charset="utf-8"><title>runs</title><style>{STYLE} svg {{ width: 100% }}</style>'
    page += f"<h1>{escape(folder.name)}</h1><table><tr>{head}{body}</table>{images}"
    lines = [columns, ["---"] * len(columns), *rows]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    replace_file(folder / "comparison.md", lambda path: path.write_text(text, encoding="utf-8"))
    replace_file(folder / "comparison.html", lambda path: path.write_text(page, encoding="utf-8"))
    return folder / "comparison.html"


def _choices(runs: Sequence[FinishedRun], differing: Sequence[str]) -> list[str]:
    """Settings that differ; a group whose card differs replaces its knobs."""
    groups = dict.fromkeys(group for run in runs for group in run.result["choices"])
    chosen = [group for group in groups if len({run.result["choices"].get(group) for run in runs}) > 1]
    covered = {"choices", *chosen, *(["encoder", "connector", "backbone"] if "model" in chosen else [])}
    return [*chosen, *(key for key in differing if key.split(".")[0] not in covered)]


def _number(part: str) -> tuple[int, str]:
    """Sort key by which job 10 comes after job 9."""
    return (int(part), "") if part.isdigit() else (-1, part)
