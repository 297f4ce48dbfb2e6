"""Index of a record file: the positions of its valid records and a table of the others, mapped from a file.

The file: one line of JSON (`HEADER`), the rows of the positions, and a line of JSON for every fault.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from io import IOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmrnn.io.atomic import replace_file
from mmrnn.io.errors import first_line
from mmrnn.io.records.files import Stamp

try:
    import fcntl
except ImportError:  # a system without POSIX locks
    fcntl = None

log = logging.getLogger(__name__)

HEADER = "mmrnn record index 1"

MIN_STORED = 2**20
"""Smallest file in bytes whose index is stored; that of a smaller one is quickly made again."""

MIN_AGE = 2.0
"""Seconds from the last change of a file until its index is stored: within a clock tick, its time stays the same."""

MAX_HEADER = 2**16

ROWS = 2**16
"""Rows that are collected before they become an array."""


class Fault(NamedTuple):
    """A record that is left out, wholly or a part of it.

    Attributes:
        id: of the record.
        reason: the same for all such records.
        message: the reason with details; None: only a part of the record is left out.
    """

    id: str
    reason: str
    message: str | None


class RecordIndex:
    """Positions of the valid records of a file, and its faults.

    Args:
        rows: structured array, a row for each valid record.
        faults: a line of JSON for each, as bytes.
        path: of the stored index; None: it is in memory.
    """

    def __init__(self, rows: np.ndarray, faults: bytes | np.ndarray, path: Path | None = None) -> None:
        self.rows, self._faults, self.path = rows, faults, path

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is None:
            return RecordIndex, (np.asarray(self.rows), bytes(self._faults))
        # A mapped array would be copied: the worker maps the file itself.
        return _reopen, (self.path, self.rows.dtype.descr)

    def faults(self) -> Iterator[Fault]:
        """Yield the faults in the order of the records."""
        for line in bytes(self._faults).splitlines():
            id, reason, message = json.loads(line)
            yield Fault(id, reason, message)


class IndexWriter:
    """Rows and faults of an index that is being made."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype, self.parts, self.pending = dtype, [], []
        self._faults: list[bytes] = []

    def add(self, row: tuple[int, ...]) -> None:
        """Add the position of a record."""
        self.pending.append(row)
        if len(self.pending) == ROWS:
            self._flush()

    def fault(self, fault: Fault) -> None:
        """Add a fault."""
        self._faults.append(json.dumps(fault).encode() + b"\n")

    def index(self) -> RecordIndex:
        """Return the index, in memory."""
        self._flush()
        rows = np.concatenate(self.parts) if self.parts else np.empty(0, self.dtype)
        return RecordIndex(rows, b"".join(self._faults))

    def _flush(self) -> None:
        self.parts.append(np.array(self.pending, self.dtype))
        self.pending.clear()


def index_path(file: str, key: Mapping[str, Any], folder: str | None) -> Path:
    """Path of the stored index of a file, hidden beside it or in a folder of indices.

    Args:
        file: path of the record file, or its URL.
        key: what the index depends on beside the file.
        folder: of the indices; None: that of the file.
    """
    digest = sha256(json.dumps([file if folder else "", key], sort_keys=True).encode()).hexdigest()[:12]
    name = file.rstrip("/").rpartition("/")[2] if folder else os.path.basename(file)
    return Path(folder or os.path.dirname(file) or ".") / f".{name}.{digest}.index"


def stored_index(path: Path, stamp: Stamp, dtype: np.dtype, make: Callable[[], RecordIndex]) -> RecordIndex:
    """Return the stored index of a file, made and stored where there is none, by one process of the machine."""
    if (found := load_index(path, stamp, dtype)) is not None:
        return found
    with one_at_a_time(path):
        if (found := load_index(path, stamp, dtype)) is None:
            found = make()
            if save_index(path, found, stamp):
                found = load_index(path, stamp, dtype) or found
    return found


def load_index(path: Path, stamp: Stamp, dtype: np.dtype) -> RecordIndex | None:
    """Map a stored index; None: there is none, or it is of another state of the file, or damaged."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(MAX_HEADER))
            start = file.tell()
        kind, state, count, faults = header
        if kind != HEADER or state != list(stamp) or path.stat().st_size != start + count * dtype.itemsize + faults:
            return None
        return _map(path, dtype, start, count, stamp.size)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.warning("%s is damaged and made again: %s", path, first_line(error))
        return None


def save_index(path: Path, index: RecordIndex, stamp: Stamp) -> bool:
    """Store an index; return False, with a warning, where its folder cannot be written."""
    rows, faults = index.rows, index._faults

    def write(new: Path) -> None:
        with new.open("wb") as file:
            header = json.dumps([HEADER, list(stamp), len(rows), len(faults)])
            # Padded: rows that begin at a multiple of 16 are read faster.
            file.write(header.ljust(-(-(len(header) + 1) // 16) * 16 - 1).encode() + b"\n")
            file.write(rows.tobytes())
            file.write(bytes(faults))

    try:
        replace_file(path, write, rows.nbytes + len(faults))
    except OSError as error:
        log.warning(
            "the index cannot be stored in %s (%s): it is made again in every process; set data.index_folder",
            path.parent,
            error.strerror or error,
        )
        return False
    return True


def worth_storing(stamp: Stamp) -> bool:
    """True for a file that is large, and was not written just now."""
    recent = stamp.state.isdecimal() and time.time_ns() - int(stamp.state) < MIN_AGE * 1e9
    return stamp.size >= MIN_STORED and not recent


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Context in which one process of the machine makes the index at `path`; the others wait for it.

    Where the folder cannot be written, or has no locks, they do not wait.
    """
    file: IOBase | None = None
    try:
        if fcntl is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.with_name(f"{path.name}.lock").open("a")
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:
        pass  # made twice, with the same result
    try:
        yield
    finally:
        if file is not None:
            file.close()
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def _map(path: Path, dtype: np.dtype, start: int, count: int, size: int) -> RecordIndex:
    rows = np.memmap(path, dtype, "r", offset=start, shape=(count,)) if count else np.empty(0, dtype)
    for offset, length in (("offset", "length"), ("image_offset", "image_length")):
        if count and offset in (dtype.names or ()):
            ends = rows[offset] + rows[length].astype("<u8")
            if ends.max() > size or (ends < rows[offset]).any():
                raise ValueError("positions lie beyond the end of the file")
    start += count * dtype.itemsize
    faults = path.stat().st_size - start
    index = RecordIndex(rows, np.memmap(path, "u1", "r", offset=start, shape=(faults,)) if faults else b"", path)
    for fault in index.faults():
        if not (isinstance(fault.id, str) and isinstance(fault.reason, str) and isinstance(fault.message, str | None)):
            raise ValueError("a fault is no text")
    return index


def _reopen(path: Path, descr: list[tuple[str, str]]) -> RecordIndex:
    """Map the index again in another process."""
    dtype = np.dtype(descr)
    with path.open("rb") as file:
        _, (size, _), count, _ = json.loads(file.readline(MAX_HEADER))
        return _map(path, dtype, file.tell(), count, size)
