"""State of the jobs of a sweep, as their folders show it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmrnn.config.sweep_plan import SweepPlan, label
from mmrnn.evaluation.reports.run_folder import (
    FAILURE,
    LOG,
    RESULT,
    STOPPED,
    read_failure,
    read_fields,
    unfinished_reason,
)
from mmrnn.io.atomic import replace_file
from mmrnn.io.lock import LOCK, lock_holder

JOB = "job.json"

State = Literal["finished", "running", "stopped", "failed", "not begun"]


@dataclass(frozen=True)
class JobStatus:
    """State of a job.

    Attributes:
        name: of the job, and of its folder.
        label: what distinguishes it from the others, in words.
        overrides: that compose its configuration.
        state: of the job.
        reason: why it is not finished, in words; empty: it is finished, or not begun.
        result: folder of the run whose result is that of the job; of a recipe that of its last stage.
    """

    name: str
    label: str
    overrides: Sequence[str]
    state: State
    reason: str
    result: Path

    def __str__(self) -> str:
        return f"{self.name} ({self.label})"


def begin_job(folder: Path, overrides: Sequence[str], run: str = ".") -> None:
    """Note in the folder of a job its overrides, and in which folder below it its last run is."""
    text = json.dumps({"overrides": [*overrides], "run": run}, indent=1)
    replace_file(folder / JOB, lambda path: path.write_text(text, encoding="utf-8"), len(text))


def job_status(folder: Path, plan: SweepPlan) -> JobStatus:
    """Return the state of the job whose folder this is.

    Raises:
        ValueError: the note in the folder is damaged.
    """
    overrides, run = plan.jobs.get(folder.name, ()), "."
    begun = (folder / JOB).is_file()
    if begun:
        overrides, run = _read_note(folder / JOB)
    state, reason = _state(folder, folder / run, begun)
    return JobStatus(folder.name, label(overrides, plan.grid), overrides, state, reason, folder / run)


def _read_note(path: Path) -> tuple[list[str], str]:
    try:
        note = read_fields(path, {"overrides": (list,), "run": (str,)})
    except (OSError, ValueError) as fault:
        raise ValueError(f"{path} is damaged ({fault}); delete it, and repeat the command of the sweep") from fault
    if not all(isinstance(one, str) for one in note["overrides"]) or Path(note["run"]).is_absolute():
        raise ValueError(f"{path} is damaged; delete it, and repeat the command of the sweep")
    return note["overrides"], note["run"]


def _state(folder: Path, result: Path, begun: bool) -> tuple[State, str]:
    if begun and (result / RESULT).is_file():
        return "finished", ""
    # The stages of a recipe have folders of their own.
    places = [folder, *sorted(path.parent for path in folder.glob(f"*/{LOCK}"))]
    for place in places:
        if lock_holder(place) is not None:
            return "running", unfinished_reason(place)
    failures = [path for place in places if (path := place / FAILURE).is_file()]
    failures += sorted(folder.glob(f"*/{FAILURE}"))
    if failures:
        try:
            error, message = read_failure(failures[0])
        except (OSError, ValueError) as fault:
            return "failed", f"{failures[0]} is damaged ({fault})"
        state: State = "stopped" if error == STOPPED else "failed"
        return state, ": ".join(filter(None, (error, message)))
    if begun or (folder / LOG).is_file() or (folder / LOCK).is_file():
        return "stopped", unfinished_reason(next(iter(sorted(path.parent for path in folder.glob(f"*/{LOG}"))), folder))
    return "not begun", ""


def job_states(folder: Path, plan: SweepPlan) -> Iterator[JobStatus]:
    """Yield the state of every job of a sweep: in its order, then those that an optimising sweeper has chosen.

    Raises:
        ValueError: a note is damaged.
    """
    for name in plan.jobs:
        yield job_status(folder / name, plan)
    for path in sorted(folder.glob(f"*/{JOB}")):
        if path.parent.name not in plan.jobs:
            yield job_status(path.parent, plan)
