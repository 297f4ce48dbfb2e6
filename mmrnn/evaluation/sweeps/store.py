"""Results of a sweep written to a small folder, for good."""

import base64
import gzip
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mmrnn.checkpoints.config_file import to_yaml
from mmrnn.config.overrides import override_key
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.evaluation.conditions import key_of
from mmrnn.evaluation.reports.sweep_file import SWEEP, differences, read_plan
from mmrnn.evaluation.sweeps.fold import fold_sweep
from mmrnn.evaluation.sweeps.job_status import job_states
from mmrnn.evaluation.sweeps.results_file import RESULTS, row
from mmrnn.evaluation.sweeps.scores import Scores, SweepRun
from mmrnn.evaluation.sweeps.stored import ANSWERS, stored_questions, stored_rows
from mmrnn.io import jsonl
from mmrnn.io.atomic import replace_file


def store_sweep(folder: Path, plan: SweepPlan, to: Path) -> list[str]:
    """Write the results of the finished jobs of a sweep into a folder; the same results give the same bytes.

    Results of the same sweep that are there already, of other seeds or options, stay.

    Args:
        folder: of the sweep.
        plan: of the sweep.
        to: folder of the results.

    Returns:
        Sentences about what is missing.

    Raises:
        ValueError: no job is finished, a file is damaged, or the folder has results of another sweep.
        ImportError: scipy is not installed.
        DiskFullError: there is no space.
    """
    fold = fold_sweep(folder, plan, single=True)
    if not fold.scores:
        raise ValueError(f"{folder} has no finished job with answers; finish the sweep first (`mmrnn sweep rerun`)")
    held_out = {split: scores for split, scores in fold.scores.items() if scores.baselines}
    lines = [_questions(split, scores) for split, scores in held_out.items()]
    kept = {run.name for scores in held_out.values() for run in scores.runs}
    rows = [row(job) for job in job_states(folder, plan) if job.name in kept]
    rows = [{name: value for name, value in one.items() if not str(value).startswith("/")} for one in rows]
    jobs = {name: [word for word in words if not _is_place(word)] for name, words in plan.jobs.items()}
    stored = replace(plan, jobs=jobs, command=[word for word in plan.command if not _is_place(word)])
    if (before := read_plan(to)) is not None:
        if differing := differences(before, stored):
            raise ValueError(f"{to} has results of another sweep ({'; '.join(differing)}); choose another folder")
        stored = replace(
            stored,
            grid={key: [*dict.fromkeys([*options, *stored.grid[key]])] for key, options in before.grid.items()},
            jobs={**stored.jobs, **_others(before.jobs, stored.jobs)},
        )
        rows = [*_others(stored_rows(to / RESULTS), kept).values(), *rows]
        lines = _joined(stored_questions(to / ANSWERS), lines, to)
    plan_text = to_yaml(asdict(stored))
    packed = _packed("".join(json.dumps(line) + "\n" for line in lines).encode())
    to.mkdir(parents=True, exist_ok=True)
    replace_file(to / SWEEP, lambda path: path.write_text(plan_text, encoding="utf-8"), len(plan_text))
    jsonl.replace(to / RESULTS, rows)
    replace_file(to / ANSWERS, lambda path: path.write_bytes(packed), len(packed))
    return fold.notes


def _is_place(word: str) -> bool:
    """True for an override that says where or how jobs run, not which ones, or names a file of one machine."""
    return (key := override_key(word)) == "out" or key.startswith("hydra") or word.partition("=")[2].startswith("/")


def _questions(split: str, scores: Scores) -> dict[str, Any]:
    """Questions of a split, and of every run one bit a question: right, or not."""
    bits = np.packbits(scores.values == 1, axis=1)
    return {
        "split": split,
        "ids": [one.id for one in scores.questions],
        "kinds": [*scores.kinds],
        "truths": [one.truth for one in scores.questions],
        "images": scores.clusters.tolist(),
        "runs": [
            {"job": run.name, "right": base64.b64encode(line.tobytes()).decode(), **_under(split, run)}
            for run, line in zip(scores.runs, bits, strict=True)
        ],
    }


def _under(split: str, run: SweepRun) -> dict[str, str]:
    """Value of the condition under which a run was asked."""
    key = key_of(split)
    return {} if key is None else {key: run.options[key]}


def _packed(content: bytes) -> bytes:
    """Compressed content without a time."""
    buffer = BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def _joined(before: list[dict[str, Any]], now: list[dict[str, Any]], to: Path) -> list[dict[str, Any]]:
    """Questions of every split with the runs that are stored, and with the new ones in their place or behind them."""
    found = {line["split"]: line for line in before}
    for line in now:
        old = found.get(line["split"], {**line, "runs": []})
        if any(old[name] != line[name] for name in ("ids", "kinds", "truths")):
            raise ValueError(f"{to} has results on other questions of {line['split']}; choose another folder")
        given = {run["job"] for run in line["runs"]}
        found[line["split"]] = {
            **line,
            "runs": [*(run for run in old["runs"] if run["job"] not in given), *line["runs"]],
        }
    return [*found.values()]


def _others(before: Mapping[str, Any], now: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in before.items() if name not in now}
