"""Files of a run folder that say how the run went: log, result, failure."""

import json
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mmrnn.io import jsonl
from mmrnn.io.atomic import replace_file
from mmrnn.io.lock import lock_holder
from mmrnn.io.tensor_files import MAX_TEXT_SIZE

LOG, RESULT, FAILURE = "log.jsonl", "result.json", "failed.json"

STOPPED = "stopped"
"""Stands in place of the name of an error where a run was stopped."""

NUMBER = (float, int)
MAX_NUMBER = 1e300

LOG_FIELDS: Mapping[str, tuple[type, ...]] = {
    "step": (int,),
    "stage": (str,),
    "loss": NUMBER,
    "lr": NUMBER,
    "skipped_steps": (int,),
    "dropped": (dict,),
}
RESULT_FIELDS: Mapping[str, tuple[type, ...]] = {
    "config": (dict,),
    "choices": (dict,),
    "parameters": (int,),
    "seconds": NUMBER,
    "loss": NUMBER,
    "accuracy": (dict,),
    "objective": NUMBER,
}


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read the records of `log.jsonl` in a folder; none where there is no such file.

    Raises:
        ValueError: the file is damaged; the message names it and the line.
    """
    path = folder / LOG
    records = jsonl.records(path)
    for number, record in enumerate(records, 1):
        if fault := field_fault(record, LOG_FIELDS):
            raise ValueError(f"{path} is damaged: record {number} {fault}; delete its line")
    return records


def read_result(folder: Path) -> dict[str, Any]:
    """Read `result.json` in a folder.

    Raises:
        ValueError: the file is empty, damaged or of something else; the message names it.
    """
    path = folder / RESULT
    try:
        result = read_fields(path, RESULT_FIELDS)
        fault = field_fault(result["choices"], dict.fromkeys(result["choices"], (str,)))
        if fault := fault or _accuracy_fault(result["accuracy"]):
            raise ValueError(f"it {fault}")
    except ValueError as error:
        cure = "delete it and train again to have it written"
        raise ValueError(f"{path} is no result of a run: {error}; {cure}") from None
    return result


def write_failure(folder: Path, error: BaseException, overrides: Sequence[str] = ()) -> None:
    """Note in a folder why its run ended, with the traceback; nothing is written where the disk is full.

    Args:
        folder: of the run.
        error: that ended it.
        overrides: that compose its configuration, where they are known.
    """
    failure = {
        "error": STOPPED if isinstance(error, KeyboardInterrupt) else type(error).__name__,
        "message": str(error),
        "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "overrides": [*overrides],
        "traceback": "".join(traceback.format_exception(error)),
    }
    text = json.dumps(failure, indent=1)
    with suppress(OSError):
        replace_file(folder / FAILURE, lambda path: path.write_text(text))


def remove_failure(folder: Path) -> None:
    """Remove the note of a former failure, where there is one."""
    (folder / FAILURE).unlink(missing_ok=True)


def unfinished_reason(folder: Path) -> str:
    """Return in words why a folder has no result: its run has not ended, has failed, or ended without a word."""
    try:
        records = read_log(folder)
        reached = f"after step {records[-1]['step']}" if records else "before its first record"
    except (OSError, ValueError) as error:
        reached = f"after an unknown step ({error})"
    if (holder := lock_holder(folder)) is not None:
        return f"running, {reached}: {holder}"
    path = folder / FAILURE
    if not path.is_file():
        return f"ended {reached} without a word (killed, or the machine went down)"
    try:
        return f"ended {reached}: {': '.join(filter(None, read_failure(path)))}"
    except (OSError, ValueError):
        return f"ended {reached}, and {path} is damaged"


def read_failure(path: Path) -> tuple[str, str]:
    """Return the name of the error that ended a run, and its message.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged; the message does not name it.
    """
    failure = read_fields(path, {"error": (str,), "message": (str,)})
    return failure["error"], failure["message"]


def read_fields(path: Path, fields: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Read a JSON object that should have some fields.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, no JSON, or lacks a field; the message does not name it.
    """
    if (size := path.stat().st_size) > MAX_TEXT_SIZE or not size:
        raise ValueError(f"it has {size:,} bytes" if size else "it is empty")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if fault := field_fault(record, fields):
        raise ValueError(f"it {fault}")
    return record


def field_fault(record: Any, fields: Mapping[str, tuple[type, ...]]) -> str:
    """Return the fault of an object that should have some fields; empty: none."""
    if not isinstance(record, dict):
        return "is no JSON object"
    for name, kinds in fields.items():
        if name not in record:
            return f"lacks {name!r}"
        value = record[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"has {name}={_shown(value)}, which should be of type {kinds[0].__name__}"
        if kinds is NUMBER and not -MAX_NUMBER < value < MAX_NUMBER:
            return f"has {name}={_shown(value)}, which is no finite number"
    return ""


def _shown(value: Any) -> str:
    try:
        return repr(value)[:40]
    except ValueError:  # an integer of thousands of digits
        return "..."


def _accuracy_fault(accuracy: Mapping[str, Any]) -> str:
    for split, kinds in accuracy.items():
        rows = kinds.values() if isinstance(kinds, dict) else [None]
        for row in rows:
            if fault := field_fault(row, {"accuracy": NUMBER}):
                return f"holds an accuracy of {split!r} that {fault}"
    return ""
