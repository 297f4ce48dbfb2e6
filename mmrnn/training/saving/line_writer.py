"""Lists in the folder of a run, such as `log.jsonl`; lines that a full disk refuses are written later."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrnn.io import jsonl
from mmrnn.io.disk import DiskFullError


class LineWriter:
    """Appends records to JSON-lines files, and keeps in memory those for which there is no space.

    Attributes:
        full: why the last attempt left records in memory; None: it left none.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.full: DiskFullError | None = None
        self._say = say
        self._waiting: dict[Path, list[Mapping[str, Any]]] = {}

    def append(self, path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records to a file, after those that wait."""
        if records:
            self._waiting.setdefault(path, []).extend(records)
        self.flush()

    def flush(self) -> None:
        """Write the records that wait; where there is no space, one line says so until there is some."""
        before, self.full = self.full, None
        for path in list(self._waiting):
            try:
                jsonl.append(path, *self._waiting[path])
            except DiskFullError as error:
                self.full = error
            else:
                del self._waiting[path]
        if self.full is not None and before is None:
            self._say(f"records are kept in memory until they can be written, and training continues: {self.full}")

    def finish(self) -> None:
        """Write the records that wait.

        Raises:
            DiskFullError: there is still no space for them.
        """
        self.flush()
        if self.full is not None:
            raise self.full
