"""Files for the servers of benchmarks, a function each, in the form of LLaVA's converters (`scripts/convert_*.py`)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrnn.evaluation.metrics.vqa_normalise import normalise_m4c
from mmrnn.evaluation.tasks.question import Question
from mmrnn.evaluation.tasks.readers.records import at, existing, get_id, records
from mmrnn.evaluation.tasks.task import Submission
from mmrnn.io.atomic import replace_file
from mmrnn.io.optional import require
from mmrnn.types import implements

PREDICTION = 6
"""Column of the reply in MMBench's table."""


@implements(Submission)
def vqav2(
    root: Path,
    folder: Path,
    questions: Sequence[Question],
    replies: Mapping[str, str],
    *,
    file: str = "vqav2/llava_vqav2_mscoco_test2015.jsonl",
) -> Path:
    """Write the replies to all questions of test2015, normalised; those that were not asked are empty.

    Args:
        root: folder of all benchmarks.
        folder: for the file.
        questions: that were asked, such as test-dev.
        replies: by the id of the question.
        file: lines of all questions of test2015.
    """
    rows = []
    for place, record in records(existing(root, file)):
        with at(place):
            id = get_id(record, "question_id")
            rows.append({"question_id": id, "answer": normalise_m4c(replies.get(str(id), ""))})
    return _write_json(folder, rows)


@implements(Submission)
def vizwiz(root: Path, folder: Path, questions: Sequence[Question], replies: Mapping[str, str]) -> Path:
    """Write image and normalised reply of every question."""
    rows = [{"image": one.image, "answer": normalise_m4c(replies.get(one.id, ""))} for one in questions]
    return _write_json(folder, rows)


@implements(Submission)
def gqa(root: Path, folder: Path, questions: Sequence[Question], replies: Mapping[str, str]) -> Path:
    """Write id and reply of every question for GQA's `eval.py`, in lower case and without periods behind it."""
    rows = [
        {"questionId": one.record["question_id"], "prediction": replies.get(one.id, "").rstrip(".").lower()}
        for one in questions
    ]
    return _write_json(folder, rows)


@implements(Submission)
def mm_vet(root: Path, folder: Path, questions: Sequence[Question], replies: Mapping[str, str]) -> Path:
    """Write the replies by `v1_ID`, for the graders of MM-Vet."""
    found = {f"v1_{one.record['question_id']}": replies.get(one.id, "") for one in questions}
    return _write_json(folder, found, indent=2)


@implements(Submission)
def seed(root: Path, folder: Path, questions: Sequence[Question], replies: Mapping[str, str]) -> Path:
    """Write id and reply of every question, one a line."""
    lines = [
        json.dumps({"question_id": one.record["official_id"], "prediction": replies.get(one.id, "")})
        for one in questions
    ]
    return _write(folder / "submission.jsonl", "".join(f"{line}\n" for line in lines))


@implements(Submission)
def mmbench(root: Path, folder: Path, questions: Sequence[Question], replies: Mapping[str, str]) -> Path:
    """Write the rows of the table as `.xlsx`, without images and categories, with the reply as seventh column.

    Raises:
        ImportError: openpyxl is not installed.
    """
    openpyxl = require("openpyxl", "openpyxl", wanted_by="MMBench's submission", extra="tasks")
    cells = require("openpyxl.cell", "openpyxl", wanted_by="MMBench's submission", extra="tasks")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")

    def text(value: str) -> Any:
        cell = cells.WriteOnlyCell(sheet, cells.cell.ILLEGAL_CHARACTERS_RE.sub("", value))
        cell.data_type = "s"  # a reply that begins with = would be a formula
        return cell

    for number, one in enumerate(questions):
        row = {name: text(cell) if cell else None for name, cell in one.record["row"].items()}
        names, values = [*row], [*(row | {"index": one.record["question_id"]}).values()]
        names.insert(PREDICTION, "prediction")
        values.insert(PREDICTION, text(replies.get(one.id, "")))
        if not number:
            sheet.append(names)
        sheet.append(values)
    path = folder / "submission.xlsx"
    replace_file(path, book.save)
    return path


def _write_json(folder: Path, content: Any, indent: int | None = None) -> Path:
    return _write(folder / "submission.json", json.dumps(content, indent=indent))


def _write(path: Path, text: str) -> Path:
    replace_file(path, lambda new: new.write_text(text, encoding="utf-8"), len(text))
    return path
