"""Cache folder of compiled libraries. A library runs as soon as it is loaded, so other users must not be able to put or
change one there.
"""

import os
import stat
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UnsafeFolderError(Exception):
    """Reason why another user could change what a folder has, in one sentence."""


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/mmrnn` or `~/.cache/mmrnn` without links, made if need be.

    Raises:
        UnsafeFolderError: another user could change what it has, or its path is relative.
        OSError: there is no such folder, and none can be made.
        RuntimeError: nobody knows the home folder of this user.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(given) if given else Path.home() / ".cache"
    if not root.is_absolute():
        raise UnsafeFolderError(
            f"{'XDG_CACHE_HOME' if given else 'HOME'} is a relative path ({root}), make it absolute"
        )
    folder = root / "mmrnn"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve(strict=True)
    require_safe(folder)
    return folder


def require_safe(folder: Path) -> None:
    """Check that only this user and the administrator can change what a folder without links has.

    Raises:
        UnsafeFolderError: another user can.
        OSError: there is no such folder.
    """
    for place in (folder, *folder.parents):
        if reason := unsafe_reason(place, sticky=place != folder):
            raise UnsafeFolderError(reason)


def unsafe_reason(path: Path, sticky: bool = False) -> str | None:
    """Return why other users can change a file or folder, or None. A link is one that they can.

    Args:
        sticky: accept a folder that all can write and whose entries only their owners can rename, as /tmp.

    Raises:
        OSError: there is no such file.
    """
    if os.name != "posix":
        return None  # folders of a user are private by other means
    status = path.lstat()
    if status.st_uid not in {os.geteuid(), 0, os.stat("/").st_uid}:
        return f"{path} belongs to another user (uid {status.st_uid})"
    if status.st_mode & WRITABLE_BY_OTHERS and not (sticky and status.st_mode & stat.S_ISVTX):
        return f"other users can write to {path}, change that with `chmod go-w`"
    return None
