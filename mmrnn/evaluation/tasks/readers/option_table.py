"""Reader of questions with options in a table: MMBench."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmrnn.data.image import ImageError, InMemoryImage
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.readers.official_references import letters
from mmrnn.evaluation.tasks.readers.records import at, check_kind, existing, make_question
from mmrnn.io.errors import RecordError
from mmrnn.types import Prompt

OPTIONS = "ABCD"

MISSING = {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"}
MISSING |= {"NULL", "NaN", "None", "n/a", "nan", "null"}
"""Texts that are an empty cell for pandas, with which LLaVA reads and writes the table."""

UNSENT = ("hint", "category", "source", "image", "comment", "l2-category")
"""Columns that a submission leaves out."""

MAX_DIGITS = 18
"""Most digits of an index."""

MAX_CELL = 2**28
"""Longest cell in characters."""


class OptionTable(QuestionReader):
    """Questions of a `.tsv` file with the columns index, hint, question, A, B, C, D, answer, category and image, which
    is in base64. Cells are quoted as pandas writes them.

    The text is hint, question and options, each on a line of its own; options from the first empty one on are left out.

    Args:
        file: the table.
        answers: the table has the column `answer`; that of the test split has not.
    """

    def __init__(self, *, file: str, answers: bool = True) -> None:
        self.file, self.answers = file, answers

    def questions(self, root: Path, *, suffix: str, prompt: Prompt) -> Iterator[Question]:
        """Yield the questions. See `QuestionReader`."""
        path, images = existing(root, self.file), {}
        columns = ("index", "hint", "question", *OPTIONS, "image", *(["answer"] if self.answers else []))
        for place, row in _rows(path, columns):
            with at(place):
                if not row["index"].isdecimal() or len(row["index"]) > MAX_DIGITS:
                    raise RecordError("index must be a whole number", f"{row['index']!r:.50}")
                found = _image(row["image"])
                image = images.setdefault(found.key, found)  # the rotations of a question have one
                count = next((n for n, name in enumerate(OPTIONS) if _is_missing(row[name])), len(OPTIONS))
                options = [f"{name}. {row[name]}" for name in OPTIONS[:count]]
                reference = letters(count, row["answer"] if self.answers else "A")
                yield make_question(
                    place,
                    "\n".join([*([] if _is_missing(row["hint"]) else [row["hint"]]), row["question"], *options]),
                    [image],
                    suffix,
                    id=row["index"],
                    image=image.key,
                    kind=row.get("category", ""),
                    truths=reference.truths if self.answers else (),
                    options=reference.options,
                    record={
                        "question_id": int(row["index"]),
                        "row": {name: cell for name, cell in row.items() if name not in UNSENT},
                    },
                )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield place and cells of every row."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))  # one for the process; an image is longer than its own
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t", strict=True)
        names: list[str] = []
        while True:
            place = f"{path} line {reader.line_num + 1}"
            with at(place):
                try:
                    cells = next(reader, None)
                except UnicodeDecodeError as error:
                    raise RecordError("a table is not UTF-8", str(error)) from None
                except csv.Error as error:
                    raise RecordError("a row cannot be read", str(error)) from None
                if cells is None:
                    return
                if not names:
                    names = cells
                    if absent := [name for name in columns if name not in names]:
                        raise RecordError("a table has no column", ", ".join(absent))
                elif len(cells) != len(names):
                    raise RecordError("a row has another number of cells than the names", f"{len(cells)}, {len(names)}")
                else:
                    yield place, dict(zip(names, map(_cell, cells), strict=True))


def _image(text: str) -> InMemoryImage:
    """Return an image whose header can be read."""
    image = ImageFolder().from_base64(text)
    try:
        image.size()
    except ImageError as error:
        raise RecordError("an image in the record is none", str(error)) from None
    return image


def _cell(text: str) -> str:
    return "" if text in MISSING else check_kind(text, str, "a cell")


def _is_missing(cell: str) -> bool:
    return cell.lower() in ("", "nan", "none")  # as LLaVA's get_options
