"""Lock of a folder, which ends with the process that holds it."""

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # a system without POSIX locks
    fcntl = None

log = logging.getLogger(__name__)

LOCK = ".lock"

HELD = (errno.EACCES, errno.EAGAIN)
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class FolderInUseError(ValueError):
    """Another process holds the folder; the message says which."""


@contextmanager
def lock_folder(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Context that holds a folder, made where it is missing.

    The lock is that of the system (`lockf`), which is released when the process ends in whatever way. It is not passed
    on to forked processes. Where the file system has no locks, a warning is logged instead.

    Args:
        folder: to hold.
        wait: seconds to wait for another process.

    Raises:
        FolderInUseError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = _acquire_in_time(folder / LOCK, time.monotonic() + wait)
    if file is None:
        log.warning("%s cannot be locked here; see to it that no other run writes into it", folder)
        yield
        return
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def lock_holder(folder: Path) -> str | None:
    """Return who holds a folder, in words; None: nobody."""
    if fcntl is None:
        return None
    try:
        file = (folder / LOCK).open()
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return file.read() or "a process that has just begun" if error.errno in HELD else None
    return None


def _acquire_in_time(path: Path, end: float) -> TextIO | None:
    while True:
        try:
            return _acquire(path)
        except FolderInUseError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.05)


def _acquire(path: Path) -> TextIO | None:
    """Open and lock a file; None: there are no locks here."""
    while fcntl is not None:
        file = path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                if error.errno in UNSUPPORTED:
                    path.unlink(missing_ok=True)
                    return None
                if error.errno not in HELD:
                    raise
                file.seek(0)
                holder = file.read() or "a process that has just begun"
            raise FolderInUseError(
                f"{path.parent} is in use by {holder}; wait for it, stop it, or choose another folder (out=...)"
            ) from None
        # A holder that ends removes the file: the one that is locked now must still be in its place.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()
    return None
