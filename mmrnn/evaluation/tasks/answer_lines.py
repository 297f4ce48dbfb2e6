"""Answers of a task on disk: LLaVA's line format, which the official converters read, with what a comparison needs."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmrnn.config.tree import leaves
from mmrnn.evaluation.tasks.question import Question
from mmrnn.io import jsonl
from mmrnn.io.atomic import replace_file

ANSWERS, SETTINGS = "answers.jsonl", "settings.json"

FAULT = "fault"
"""Key in `metadata` of the reason why a question could not be asked."""


def answer_line(question: Question, prompt: str, reply: str, model: str, fault: str = "") -> dict[str, Any]:
    """Return the line of an answer that is not scored yet.

    Args:
        question: that was asked.
        prompt: its text with what the task adds.
        reply: of the model; "": none.
        model: name of the model.
        fault: why it could not be asked.
    """
    return {
        "question_id": question.record.get("question_id", question.id),
        "prompt": prompt,
        "text": reply,
        "answer_id": sha256(f"{model} {question.id} {reply}".encode("utf-8", "replace")).hexdigest()[:22],
        "model_id": model,
        "metadata": {FAULT: fault} if fault else {},
        "id": question.id,
        "image": question.image,
        "kind": question.kind,
        "truth": [*question.truths] if question.box is None else [*question.box],
        "score": None,
    }


def resume(folder: Path, settings: Mapping[str, Any], questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """Return the lines of questions that were answered before, by id; those that could not be asked are asked again.

    Args:
        folder: of the results of the task.
        settings: that replies depend on; written where there are none yet.
        questions: of the task.

    Raises:
        ValueError: the folder holds answers of other settings, or a file in it is damaged.
    """
    given = json.loads(json.dumps(settings))
    path = folder / SETTINGS
    if path.is_file():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete {folder} to ask again") from None
        if before != given:
            names = ", ".join(_differing(before, given))
            raise ValueError(
                f"{folder} holds answers of other settings (they differ in {names}); delete it, or choose another "
                "folder (out=...)"
            )
    elif (folder / ANSWERS).exists():
        raise ValueError(f"{folder} holds {ANSWERS} without {SETTINGS}; delete it, or choose another folder (out=...)")
    else:
        text = json.dumps(given, indent=1)
        replace_file(path, lambda new: new.write_text(text), len(text))
    known = {question.id for question in questions}
    lines = jsonl.records(folder / ANSWERS)
    for number, line in enumerate(lines, 1):
        if not (isinstance(line.get("id"), str) and isinstance(line.get("text"), str)):
            raise ValueError(f"{folder / ANSWERS} is damaged: line {number} has no id or no text; delete that line")
    kept = {line["id"]: line for line in lines if line["id"] in known and FAULT not in (line.get("metadata") or {})}
    # What a killed process left of its last line, and what is asked again, is removed.
    if lines or (folder / ANSWERS).exists():
        jsonl.replace(folder / ANSWERS, [*kept.values()])
    return kept


def _differing(before: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    one, other = dict(leaves(before)), dict(leaves(given))
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
