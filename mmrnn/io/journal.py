"""Journal of a pass over many items: a line for each item, from which a pass that was killed continues."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmrnn.io import jsonl
from mmrnn.io.atomic import replace_file
from mmrnn.io.lock import lock_folder

LINES, SETTINGS = "lines.jsonl", "settings.json"


class Journal:
    """Lines of a pass over items in a fixed order, one for each item, in the folder `OUT.partial`.

    The folder is removed when the output is whole (`finish`). `open_journal` makes one.

    Args:
        out: file that the pass writes.

    Attributes:
        folder: of the lines; other files of the pass may lie in it.
        done: number of items that have a line.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, partial_folder(out)
        self.path = self.folder / LINES
        self.path.touch()
        self.done = _keep_whole_lines(self.path)

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add the lines of the next items.

        Raises:
            DiskFullError: there is no space for all of them; none is added.
        """
        added = list(lines)
        jsonl.append(self.path, *added)
        self.done += len(added)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read the lines one by one.

        Raises:
            ValueError: one is damaged.
        """
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(
                        f"{self.path} is damaged: line {number} is not JSON ({error}); delete {self.folder}"
                    ) from None

    def finish(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the output, a JSON line for each record, in one rename, and remove the folder.

        Raises:
            DiskFullError: there is no space for the output.
        """

        def write(new: Path) -> None:
            with new.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)

        replace_file(self.out, write)
        self.path.unlink()  # first: where there are no lines, a file that exists is whole
        shutil.rmtree(self.folder)


def partial_folder(out: Path) -> Path:
    """Return the folder of the journal of an output."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def open_journal(out: Path, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """Context of the journal of an output: that of a pass which was killed, or a new one.

    Args:
        out: file that the pass writes.
        settings: all that the lines depend on.

    Raises:
        ValueError: there is such a file, or the journal was begun with other settings.
        FolderInUseError: another process makes the same output.
    """
    folder = partial_folder(out)
    if out.exists() and not (folder / LINES).exists():
        raise ValueError(f"{out} exists; delete it, or name another file")
    with lock_folder(folder):
        _check_settings(folder / SETTINGS, json.loads(json.dumps(settings)))
        yield Journal(out)


def _check_settings(path: Path, given: dict[str, Any]) -> None:
    if not path.is_file():
        text = json.dumps(given, indent=1)
        replace_file(path, lambda new: new.write_text(text), len(text))
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if differing := [name for name in {**before, **given} if _item(before, name) != _item(given, name)]:
        raise ValueError(
            f"{path.parent} was begun with other settings (they differ in {', '.join(differing)}); repeat that "
            "command, or delete the folder"
        )


def _item(settings: Mapping[str, Any], name: str) -> list[Any]:
    """A setting in a list; an empty one where it is missing."""
    return [settings[name]] if name in settings else []


def _keep_whole_lines(path: Path) -> int:
    """Number of lines; what a killed process left of its last line is removed."""
    count = size = 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            count, size = count + 1, size + len(line)
        file.truncate(size)
    return count
