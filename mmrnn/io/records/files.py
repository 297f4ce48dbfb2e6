"""Bytes of local files, and of URLs by fsspec."""

import glob
import os
import re
from collections import OrderedDict
from io import BytesIO, FileIO, IOBase
from itertools import product
from threading import Lock
from typing import Any, NamedTuple

from mmrnn.io.errors import RecordError, first_line
from mmrnn.io.optional import require

URL = re.compile(r"[A-Za-z][\w+.-]+://")

BRACES = re.compile(r"\{([^{}]*)\}")

RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")

MAX_FILES = 1_000_000
"""Most files that a pattern may name."""

MAX_CACHED, CACHED = 2**26, 8
"""Largest part of a URL that is kept for further reads, and number of parts that a process keeps."""

MAX_OPEN = 64
"""Files that a process keeps open for reading by offset."""


class Stamp(NamedTuple):
    """Size in bytes and state of a file; another state means another content."""

    size: int
    state: str


def is_url(path: str) -> bool:
    """True for a path with a scheme, such as `s3://bucket/file`."""
    return URL.match(path) is not None


def stamp(path: str) -> Stamp:
    """Return size and state of a file.

    Raises:
        OSError: it is not there, or cannot be read.
        ImportError: fsspec, or what it needs for this scheme, is not installed.
    """
    if is_url(path):
        files = _filesystem(path)
        info = files.info(path)
        return Stamp(int(info["size"]), str(files.ukey(path)))
    status = os.stat(path)
    return Stamp(status.st_size, str(status.st_mtime_ns))


def open_file(path: str) -> IOBase:
    """Open a file for reading.

    Raises:
        OSError: it is not there, or cannot be read.
        ImportError: see `stamp`.
    """
    return _filesystem(path).open(path, "rb") if is_url(path) else open(path, "rb")


def read_range(path: str, stamp: Stamp, offset: int, length: int) -> bytes:
    """Return bytes of a file that is in a known state.

    Raises:
        RecordError: it is gone, was changed, or has fewer bytes.
    """
    try:
        if is_url(path):
            found = _parts_of_urls.read(path, stamp, offset, length)
        else:
            found = _open_files.read(path, stamp, offset, length)
    except FileNotFoundError:
        raise RecordError("a file of the data is not there any more", path) from None
    except OSError as error:
        raise RecordError("a file of the data cannot be read", f"{path}: {first_line(error)}") from None
    if len(found) != length:
        raise RecordError("a file of the data was cut", f"{path}: {len(found)} of {length} bytes at {offset}")
    return found


def expand(pattern: str) -> list[str]:
    """Return the files that a pattern names: `{000..099}` and `{a,b}` expanded, `*`, `?` and `[...]` searched, sorted.

    A name that exists as it stands is itself. Files that braces name are returned whether they exist or not.

    Raises:
        ValueError: the pattern names more than a million files, or a range that runs backwards.
        OSError: a folder in the network cannot be listed.
    """
    if not is_url(pattern) and os.path.exists(pattern):
        return [pattern]
    found = []
    for name in _expand_braces(pattern):
        if not glob.has_magic(name):
            found.append(name)
        elif is_url(name):
            scheme = URL.match(name).group()
            found += sorted(scheme + path.removeprefix(scheme) for path in _filesystem(name).glob(name))
        else:
            found += sorted(glob.glob(name, recursive=True))
    return found


def _expand_braces(pattern: str) -> list[str]:
    choices, total = [], 1
    for index, part in enumerate(BRACES.split(pattern)):
        if index % 2 == 0:
            choices.append([part])
            continue
        if run := RANGE.fullmatch(part):
            first, last = map(int, run.groups())
            if first > last:
                raise ValueError(f"{{{part}}} in {pattern} runs backwards; write the lower number first")
            words = range(first, last + 1)
        else:
            words = part.split(",")
        total *= len(words)
        if total > MAX_FILES:
            raise ValueError(f"{pattern} names more than {MAX_FILES:,} files; use a shorter range")
        width = len(run.group(1)) if run else 0
        choices.append([f"{word:0{width}d}" if run else word for word in words])
    return ["".join(parts) for parts in product(*choices)]


class _OpenFiles:
    """Files that are open for reading by offset, the least recently used of them closed."""

    def __init__(self) -> None:
        self.files: OrderedDict[tuple[str, Stamp], IOBase] = OrderedDict()
        self.lock = Lock()

    def read(self, path: str, state: Stamp, offset: int, length: int) -> bytes:
        with self.lock:
            file = self._open(path, state)
            if hasattr(os, "pread"):  # has no position that a forked process would share
                return _read_all(file.fileno(), offset, length)
            file.seek(offset)
            return file.read(length)

    def _open(self, path: str, state: Stamp) -> IOBase:
        key = path, state
        if key not in self.files:
            file = FileIO(path)  # closed below, or with the process
            status = os.fstat(file.fileno())
            if Stamp(status.st_size, str(status.st_mtime_ns)) != state:
                file.close()
                raise RecordError("a file of the data was changed since the run began", path)
            self.files[key] = file
            if len(self.files) > MAX_OPEN:
                self.files.popitem(last=False)[1].close()
        self.files.move_to_end(key)
        return self.files[key]


class _PartsOfUrls:
    """Parts of URLs that were read last: the parts of a record are read one after the other."""

    def __init__(self) -> None:
        self.parts: OrderedDict[tuple[str, Stamp, int], bytes] = OrderedDict()
        self.lock = Lock()

    def read(self, path: str, state: Stamp, offset: int, length: int) -> bytes:
        with self.lock:
            for (name, known, start), part in self.parts.items():
                if (name, known) == (path, state) and start <= offset and offset + length <= start + len(part):
                    return part[offset - start : offset - start + length]
        found = _filesystem(path).cat_file(path, start=offset, end=offset + length)
        if len(found) <= MAX_CACHED:
            with self.lock:
                self.parts[path, state, offset] = found
                if len(self.parts) > CACHED:
                    self.parts.popitem(last=False)
        return found


def _read_all(descriptor: int, offset: int, length: int) -> bytes:
    """Bytes at an offset; the system reads 2 GiB at most at a time."""
    found = BytesIO()
    while found.tell() < length:
        part = os.pread(descriptor, length - found.tell(), offset + found.tell())
        if not part:
            break
        found.write(part)
    return found.getvalue()


_open_files = _OpenFiles()
_parts_of_urls = _PartsOfUrls()


def _filesystem(path: str) -> Any:
    """File system of fsspec for a URL."""
    fsspec = require("fsspec", "fsspec", wanted_by=path, extra="data")
    try:
        return fsspec.core.url_to_fs(path)[0]
    except ImportError as error:
        raise ImportError(f"{path} needs a package: {first_line(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from None
