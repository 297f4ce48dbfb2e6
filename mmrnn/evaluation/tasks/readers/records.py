"""Records of official files, each with its place for messages, and questions made of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrnn.data.readers.dialogue import check_characters
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.evaluation.tasks.question import Question
from mmrnn.io.errors import RecordError
from mmrnn.io.records.files import stamp
from mmrnn.io.records.json_files import JsonLines, kind_of
from mmrnn.types import TAG, ImageSource, Sample, Turn

NAMES = {str: "text", int: "a whole number", list: "a list", dict: "an object"}

MAX_LINE = 2**28
"""Longest line in bytes."""


def existing(root: Path, name: str) -> Path:
    """Return the path of a file or folder of a benchmark.

    Raises:
        FileNotFoundError: it is missing, or the root is.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; set root= to the folder of all benchmarks")
    if not (root / name).exists():
        raise FileNotFoundError(f"{root / name} is missing; download it there, or set root= to the folder of {name}")
    return root / name


def images_in(root: Path, folder: str) -> ImageFolder:
    """Return a folder of images, which must exist; the images themselves may be missing."""
    return ImageFolder(str(existing(root, folder)))


@contextmanager
def at(place: str) -> Iterator[None]:
    """Add the place of a record to its errors."""
    try:
        yield
    except RecordError as error:
        raise RecordError(error.reason, f"{place}: {error.detail}" if error.detail else place) from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, read as a whole.

    Raises:
        RecordError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise RecordError("a file is no JSON", f"{path}: nested too deeply") from None
    except ValueError as error:
        raise RecordError("a file is no JSON", f"{path}: {error}") from None


def listed(content: Any, key: str, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and content of the elements of a list in a JSON object.

    Args:
        content: of the file.
        key: of the list.
        path: of the file.

    Raises:
        RecordError: there is no such list.
    """
    with at(str(path)):
        found = get(content, key, list)
    for number, element in enumerate(found, 1):
        yield f"{path} {key} {number}", element


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and content of every record: a line of a `.jsonl` file, an element of the list of a `.json` file.

    POPE's label files are lines, although they are named `.json`: a file that does not begin with `[` is taken so.

    Raises:
        RecordError: a record is damaged, or no object.
    """
    with path.open("rb") as file:
        is_list = path.suffix == ".json" and file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")
    for place, record in _elements(path) if is_list else _lines(path):
        with at(place):
            yield place, check_kind(record, dict, "a record")


def _elements(path: Path) -> Iterator[tuple[str, Any]]:
    for number, record in enumerate(read_json(path), 1):
        yield f"{path} record {number}", record


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    lines = JsonLines(str(path), stamp(str(path)))
    with path.open("rb") as file:
        lines.skip_header(file)
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            place = f"{path} line {number}"
            with at(place):
                if len(line) == MAX_LINE:
                    raise RecordError("a line is too long", f"more than {MAX_LINE} bytes")
                if not line.isspace():
                    yield place, lines.parse(line)


def check_kind(value: Any, kind: type, name: str) -> Any:
    """Return a value that has the type that it should have.

    Raises:
        RecordError: it has another type, or is text with half a character.
    """
    if type(value) is not kind:
        raise RecordError(f"{name} must be {NAMES[kind]}", kind_of(value))
    if kind is str:
        check_characters(value, name)
    return value


def get(record: Any, key: str, kind: type) -> Any:
    """Return the value of a key.

    Raises:
        RecordError: the record is no object, the key is missing, or its value has another type.
    """
    if key not in check_kind(record, dict, "a record"):
        raise RecordError(f"a record has no {key}")
    return check_kind(record[key], kind, key)


def get_id(record: Mapping[str, Any], *keys: str) -> str | int:
    """Return the value of the first key that is there: text or a whole number.

    Raises:
        RecordError: there is none.
    """
    check_kind(record, dict, "a record")
    key = next((key for key in keys if key in record), keys[0])
    return get(record, key, int if type(record.get(key)) is int else str)


def make_question(
    place: str, text: str, images: Sequence[ImageSource], suffix: str, *, id: str, **fields: Any
) -> Question:
    """Return a question about images, which stand before it unless the text has a tag for each of several.

    Args:
        place: file and line of the record.
        text: of the question.
        images: that it is about.
        suffix: line added to it.
        id: of the question.
        fields: others of `Question`.
    """
    asked = text
    if not len(images) == text.count(TAG) > 1:
        asked = "\n".join([*([TAG * len(images)] if images else []), text.replace(TAG, "").strip()])
    turns = Turn("user", f"{asked}\n{suffix}" if suffix else asked), Turn("assistant", "")
    sample = Sample(turns, tuple(images), fields.get("kind", ""), id)
    return Question(id=id, sample=sample, text=text, place=place, **fields)
