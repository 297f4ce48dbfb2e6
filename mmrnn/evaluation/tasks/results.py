"""Results of a task: scores, what counts as wrong, departures from the published way, and files for servers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmrnn.evaluation.metrics.items import LONGEST_REPLY, BoxItem, Item, Scores, TextItem
from mmrnn.evaluation.tasks.answer_lines import ANSWERS, FAULT
from mmrnn.evaluation.tasks.question import Question
from mmrnn.evaluation.tasks.task import Task
from mmrnn.inference.beam_search import BeamSearch
from mmrnn.io import jsonl
from mmrnn.io.atomic import replace_file
from mmrnn.io.versions import library_versions

RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """Settings with which a task is put to a model.

    Attributes:
        name: of the task.
        root: folder of all benchmarks.
        folder: of the results.
        model: name of the model in the answers.
        card: of task and prompt, as plain data; replies depend on it.
        batch_size: questions that are asked at once.
        rank: choose the likeliest option of each question in place of a generated reply.
        beams: search for the most likely replies; None: the most likely token each time.
        max_questions: ask the first ones alone; 0: all.
        feature_cache_gib: memory for the features of images; 0: encoded with every batch.
        departures: from the published prompt or rule, in words.
    """

    name: str
    root: Path
    folder: Path
    model: str = "mmrnn"
    card: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    rank: bool = False
    beams: BeamSearch | None = None
    max_questions: int = 0
    feature_cache_gib: float = 4.0
    departures: Sequence[str] = ()


def check_results(task: Task, root: Path, questions: Sequence[Question]) -> None:
    """Score empty replies and submit them nowhere, so that what is missing at the end is missing at the beginning.

    Args:
        task: to be done.
        root: folder of all benchmarks.
        questions: to be asked.

    Raises:
        FileNotFoundError: a file of the submission is missing.
        ImportError: a package is not installed.
        RuntimeError: a program is not installed.
        ValueError: the metric cannot score the questions.
    """
    if task.metric is not None:
        task.metric([_item(question, {"text": "", "metadata": {}}) for question in questions])
    if task.submission is not None:
        with TemporaryDirectory() as folder:
            task.submission(root, Path(folder), questions, {question.id: "" for question in questions})


def write_results(
    task: Task,
    run: TaskRun,
    questions: Sequence[Question],
    lines: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    asked: int,
    padding: float | None,
) -> dict[str, Any]:
    """Score all answers; write them in the order of the questions, the result, and the submission.

    Args:
        task: that was done.
        run: where and how.
        questions: that were asked.
        lines: answer of each by id.
        settings: that replies depend on.
        asked: number of questions that the task has.
        padding: share of padding in the batches; None: nothing was read.

    Returns:
        The result.

    Raises:
        ValueError: the metric cannot score the replies.
    """
    items = [_item(question, lines[question.id]) for question in questions]
    skipped: dict[str, list[str]] = {}
    for item in items:
        if reason := _fault(item, lines[item.id]):
            skipped.setdefault(reason, []).append(item.id)
    scores = task.metric(items) if task.metric is not None else Scores({})
    jsonl.replace(run.folder / ANSWERS, [{**lines[item.id], "score": scores.by_id.get(item.id)} for item in items])
    departures = [*run.departures]
    if run.rank:
        departures.append("replies are options chosen by their probability, not generated")
    if len(questions) < asked:
        departures.append(f"the first {len(questions):,} of {asked:,} questions are asked")
    result = {
        "task": run.name,
        "model": run.model,
        "root": str(run.root.absolute()),
        "questions": len(questions),
        "images": len({image.key for question in questions for image in question.sample.images}),
        "main": task.main,
        "scores": scores.summary,
        "skipped": skipped,
        "departures": departures,
        "source": task.source,
        "padding": padding,
        "settings": dict(settings),
        "versions": library_versions("pycocoevalcap"),
    }
    if task.submission is not None:
        texts = {item.id: item.reply for item in items}
        result["submission"] = task.submission(run.root, run.folder, questions, texts).name
    text = json.dumps(result, indent=1)
    replace_file(run.folder / RESULT, lambda new: new.write_text(text), len(text))
    return result


def _item(question: Question, line: Mapping[str, Any]) -> Item:
    reply = line["text"]
    valid = bool(reply.strip()) and FAULT not in line["metadata"]
    common = {"id": question.id, "reply": reply, "kind": question.kind, "image": question.image, "valid": valid}
    if question.box is not None:
        return BoxItem(
            **common, box=question.box, width=question.size[0], height=question.size[1], codec=question.codec
        )
    return TextItem(**common, truths=question.truths)


def _fault(item: Item, line: Mapping[str, Any]) -> str:
    """Return the reason for which a reply counts as wrong unread; "": there is none."""
    if fault := line["metadata"].get(FAULT):
        return str(fault)
    if not item.valid:
        return "the reply is empty"
    return f"the reply has {LONGEST_REPLY:,} characters or more" if len(item.reply) >= LONGEST_REPLY else ""
