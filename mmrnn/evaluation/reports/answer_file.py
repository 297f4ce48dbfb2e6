"""Answers of a run to its held-out questions: `answers.jsonl`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mmrnn.evaluation.accuracy import Answer
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.run_folder import field_fault
from mmrnn.io import jsonl
from mmrnn.io.atomic import replace_file

ANSWERS = "answers.jsonl"

ANSWER_FIELDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("split", "kind", "question", "truth", "reply", "id"), (str,)),
    "images": (list,),
    "index": (int,),
}


def write_answers(folder: Path, answers: Mapping[str, Sequence[Answer]]) -> None:
    """Write the answers by split as JSON lines, one per question, into the folder of a run."""
    records = (
        {"split": name, **asdict(answer), "right": answer.right} for name, found in answers.items() for answer in found
    )
    lines = [json.dumps(record) for record in records]
    replace_file(folder / ANSWERS, lambda new: new.write_text("".join(f"{line}\n" for line in lines)))


def read_answers(folder: Path) -> dict[str, list[ScoredReply]]:
    """Read the answers in the folder of a run, by split; a right one has the score 1.

    Raises:
        ValueError: there is no such file, it is damaged, or it was written before answers had ids.
    """
    path = folder / ANSWERS
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    answers: dict[str, list[ScoredReply]] = {}
    for number, record in enumerate(jsonl.records(path), 1):
        if {"id", "images"}.isdisjoint(record):
            raise ValueError(
                f"{path} has no ids of samples: it was written by an older mmrnn; train again to have them"
            )
        fault = field_fault(record, ANSWER_FIELDS)
        if fault or not all(isinstance(image, str) for image in record["images"]):
            raise ValueError(f"{path} is damaged: record {number} {fault or 'has an image that is no text'}")
        given = {name: record[name] for name in ANSWER_FIELDS if name not in ("split", "images")}
        answers.setdefault(record["split"], []).append(scored(Answer(**given, images=tuple(record["images"]))))
    return answers


def scored(answer: Answer) -> ScoredReply:
    """Return an answer with its score; question, kind and images are the same wherever it is paired."""
    return ScoredReply(
        answer.id,
        answer.question,
        answer.truth,
        answer.reply,
        float(answer.right),
        answer.images,
        answer.kind,
        (answer.kind, answer.question, answer.truth),
        answer.index,
    )
