"""Results of the tasks of a run: `eval/TASK/answers.jsonl` and `eval/TASK/result.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.run_folder import NUMBER, RESULT, field_fault, read_fields
from mmrnn.evaluation.tasks.answer_lines import ANSWERS, SETTINGS
from mmrnn.io import jsonl

TASKS = "eval"
"""Folder in that of a run, with a folder for each task."""

ANSWER_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "prompt", "text", "image"), (str,)),
    "truth": (list,),
}
RESULT_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("scores", "skipped", "settings"), (dict,)),
    "questions": (int,),
    **dict.fromkeys(("main", "root"), (str,)),
    "departures": (list,),
}


@dataclass(frozen=True)
class TaskResult:
    """Result of a task.

    Attributes:
        replies: with their scores; none: the task has no references on disk.
        questions: number of them.
        figure: name and value of what papers print; "": the replies have no scores.
        skipped: number of questions that count as wrong unread: not asked, an empty reply, or one too long.
        departures: from the published prompt or rule.
        settings: cards of the reader and the prompt.
        root: folder of all benchmarks.
    """

    replies: list[ScoredReply]
    questions: int
    figure: str
    skipped: int
    departures: list[str]
    settings: Mapping[str, Any]
    root: str


def task_label(task: str) -> str:
    """Return the name of a task beside those of held-out splits."""
    return f"task {task}"


def read_tasks(run: Path) -> tuple[dict[str, TaskResult], list[str]]:
    """Return the results of the tasks of a run by name, and the faults of those that cannot be read.

    Args:
        run: folder of a run with `eval/TASK`, or the folder of the tasks.
    """
    found, faults = {}, []
    folders = [path for path in (run / TASKS).glob("*") if path.is_dir()]
    for folder in sorted(folders or (path.parent for path in run.glob(f"*/{SETTINGS}"))):
        try:
            found[folder.name] = read_task(folder)
        except (OSError, ValueError) as fault:
            faults.append(str(fault))
    return found, faults


def read_task(folder: Path) -> TaskResult:
    """Read the result of a task.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is missing, not complete or damaged; the message names it.
    """
    result = _result(folder / RESULT)
    path = folder / ANSWERS
    records = jsonl.records(path)
    if len(records) != result["questions"]:
        raise ValueError(f"{path} has {len(records):,} of {result['questions']:,} answers; repeat its `mmrnn eval`")
    scoreless = all(record.get("score") is None for record in records)
    fields = ANSWER_FIELDS if scoreless else {**ANSWER_FIELDS, "score": NUMBER}
    for number, record in enumerate(records, 1):
        if fault := field_fault(record, fields):
            raise ValueError(f"{path} is damaged: record {number} {fault}; repeat its `mmrnn eval`")
    main = result["main"]
    return TaskResult(
        [] if scoreless else [_reply(record) for record in records],
        len(records),
        f"{main} {result['scores'][main]:.3f}" if main else "",
        sum(map(len, result["skipped"].values())),
        [*map(str, result["departures"])],
        result["settings"],
        result["root"],
    )


def _result(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no {path}: the task is not finished; repeat its `mmrnn eval`")
    try:
        result = read_fields(path, RESULT_FIELDS)
        fault = field_fault(result["scores"], {result["main"]: NUMBER}) if result["main"] else ""
        if fault := fault or field_fault(result["skipped"], dict.fromkeys(result["skipped"], (list,))):
            raise ValueError(f"it {fault}")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; repeat its `mmrnn eval`") from None
    return result


def _reply(record: Mapping[str, Any]) -> ScoredReply:
    """Reply of a line. Designs may be asked in words of their own: the references have to be the same, not the prompt.

    All questions have one kind, as papers take the mean over questions.
    """
    truth = ", ".join(dict.fromkeys(map(str, record["truth"])))
    images = tuple(record["image"].split(", ")) if record["image"] else ()
    texts = (record["id"], record["prompt"], truth, record["text"])
    return ScoredReply(*texts, float(record["score"]), images, same=tuple(map(str, record["truth"])))
