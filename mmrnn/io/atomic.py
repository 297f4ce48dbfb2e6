"""Atomic replacement of a file."""

import glob
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mmrnn.io.disk import explain_full_disk

ABANDONED = 24 * 3600
"""Seconds since an unfinished file of another machine was last written to, after which its writer has ended."""


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
    new = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        with explain_full_disk(new, needed):
            write(new)
            with new.open("rb+") as file:
                os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the unfinished files that writers of `path` left whose process has ended.

    Of processes on other machines nothing is known: their files are left for a day.
    """
    start, own = f".{path.name}.", socket.gethostname()
    for old in path.parent.glob(f"{glob.escape(start)}*"):
        host, _, number = old.name.removeprefix(start).rpartition(".")
        if not host or not number.isdecimal() or not number.isascii():
            continue
        with suppress(FileNotFoundError):  # renamed meanwhile
            ended = not _is_running(int(number)) if host == own else old.stat().st_mtime < time.time() - ABANDONED
            if ended:
                old.unlink()


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
