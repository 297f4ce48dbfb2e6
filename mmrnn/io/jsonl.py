"""JSON lines: one object a line, appended during a run."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrnn.io.atomic import replace_file
from mmrnn.io.disk import explain_full_disk


def append(path: Path, *records: Mapping[str, Any]) -> None:
    """Add lines to a JSON-lines file.

    Raises:
        DiskFullError: there is no space for all of them; none is added.
    """
    text = "".join(json.dumps(record) + "\n" for record in records)
    size = path.stat().st_size if path.exists() else 0
    with explain_full_disk(path, len(text), removed=False):
        try:
            with path.open("a") as file:
                file.write(text)
        except OSError:
            if path.exists():
                os.truncate(path, size)
            raise


def records(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a JSON-lines file; what a killed run left of its last line does not count.

    Raises:
        ValueError: a whole line is damaged; the message names file and line.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: byte {error.start} is no text; delete the line with it") from None
    return [_record(path, number, line) for number, line in enumerate(lines[:-1], 1) if line]


def replace(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Replace a JSON-lines file atomically."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    replace_file(path, lambda new: new.write_text(text), len(text))


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: line {number} is not JSON ({error}); delete that line") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: line {number} is no JSON object; delete that line")
    return record
