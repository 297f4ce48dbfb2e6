"""Full disks, named with bytes."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = 2**20
"""Free bytes below which a write that failed without saying why has filled the disk."""


class DiskFullError(OSError):
    """There is no space for a file; the message says where, and how many bytes are free."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.errno = errno.ENOSPC


@contextmanager
def explain_full_disk(target: Path, needed: int | None = None, *, removed: bool = True) -> Iterator[None]:
    """Context of writing `target`, a file or a folder.

    Args:
        target: the path.
        needed: bytes to be written; None: not known.
        removed: the caller removes it where the write fails, so that its bytes are free.

    Raises:
        DiskFullError: the disk or the quota is full.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(target.parent).free
        if not _is_full(error, free):
            raise
        free += _size(target) if removed else 0
        wanted = f"{needed:,} bytes are to be written, " if needed is not None else ""
        raise DiskFullError(
            f"no space left for {target.parent}: {wanted}{free:,} bytes are free on its disk; free some and try again"
        ) from error


def _is_full(error: Exception, free: int) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # safetensors passes the text of the system on; torch.save only says that its file is shorter than it should be.
    return "os error 28" in str(error) or (isinstance(error, RuntimeError) and free < NO_ROOM)


def _size(target: Path) -> int:
    files = target.rglob("*") if target.is_dir() else [target]
    return sum(file.stat().st_size for file in files if file.is_file())
