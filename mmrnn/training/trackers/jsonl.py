"""Log of a run as JSON lines."""

import json
from pathlib import Path

from mmrnn.io.atomic import replace_file


def append(path: Path, record: dict) -> None:
    """Add a line to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def records(path: Path) -> list[dict]:
    """The whole lines of a JSON-lines file; what a killed run left of its last line does not count."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def truncate_log(path: Path, until: int) -> None:
    """Forget the records after step `until`: a run that goes on will write them again."""
    kept = [record for record in records(path) if record["step"] <= until]
    replace_file(path, lambda new: new.write_text("".join(json.dumps(record) + "\n" for record in kept)))
