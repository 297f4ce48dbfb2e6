"""Atomic replacement of a file."""

import glob
import os
from collections.abc import Callable
from pathlib import Path

from mmrnn.io.disk import explain_full_disk


def replace_file(path: Path, write: Callable[[Path], object], needed: int | None = None) -> None:
    """Let `write` make a new file beside `path` and rename it to `path`: a killed writer leaves the old file.

    What killed writers of the same file left beside it is removed.

    Args:
        path: of the file.
        write: writes the new file.
        needed: bytes to be written, for the message of a full disk; None: not known.

    Raises:
        DiskFullError: there is no space for the new file; the old one is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with explain_full_disk(new, needed):
            write(new)
            with new.open("rb+") as file:
                os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the unfinished files that writers of `path` left whose process has ended."""
    start = f".{path.name}."
    for old in path.parent.glob(f"{glob.escape(start)}*"):
        number = old.name.removeprefix(start)
        if number.isdecimal() and number.isascii() and not _is_running(int(number)):
            old.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # not known; signal 0 would end the process
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
