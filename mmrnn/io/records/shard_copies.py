"""Local copies of shards in the network, the oldest of them removed."""

import re
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from mmrnn.io.atomic import replace_file
from mmrnn.io.errors import RecordError
from mmrnn.io.records.files import Stamp, open_file
from mmrnn.io.records.index import one_at_a_time

BLOCK = 2**24

COPY = re.compile(r"[0-9a-f]{16}-")
"""Beginning of the name of a copy, and of its lock; other files of the folder are left alone."""


def local_copy(url: str, stamp: Stamp, folder: str, max_bytes: int) -> str:
    """Return the path of a copy of a shard, made where there is none.

    One process of the machine copies a shard, and the others wait for it. The oldest copies are removed until the new
    one fits; one that is larger than `max_bytes` is alone.

    Args:
        url: of the shard.
        stamp: its state; a copy of another state is another file.
        folder: of the copies.
        max_bytes: of all copies together.

    Raises:
        RecordError: the shard was cut while it was read.
        OSError: it cannot be read, or the copy cannot be written.
    """
    digest = sha256(f"{url} {stamp.state}".encode()).hexdigest()[:16]
    path = Path(folder) / f"{digest}-{url.rpartition('/')[2]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(path):
        if not path.is_file() or path.stat().st_size != stamp.size:
            _make_room(path.parent, max_bytes - stamp.size)
            replace_file(path, lambda new: _copy(url, new), stamp.size)
            if path.stat().st_size != stamp.size:
                path.unlink()
                raise RecordError("a file of the data was cut", url)
    return str(path)


def _copy(url: str, new: Path) -> None:
    with open_file(url) as source, new.open("wb") as target:
        shutil.copyfileobj(source, target, BLOCK)


def _make_room(folder: Path, max_bytes: int) -> None:
    """Remove the oldest copies, until those that are left have `max_bytes` together."""
    copies = []
    for copy in folder.iterdir():
        with suppress(FileNotFoundError):
            status = copy.stat()
            if COPY.match(copy.name) and copy.suffix != ".lock":
                copies.append((status.st_mtime_ns, status.st_size, copy))
    total = sum(size for _, size, _ in copies)
    for _, size, copy in sorted(copies):
        if total <= max_bytes:
            return
        copy.unlink(missing_ok=True)  # a process that has it open reads on
        total -= size
