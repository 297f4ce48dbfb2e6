"""Records of a tar shard in the form of WebDataset: members of one key, one after the other, are one record."""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any, ClassVar

from mmrnn.io.errors import RecordError
from mmrnn.io.records.files import MAX_CACHED, Stamp, is_url, open_file, read_range
from mmrnn.io.records.json_files import kind_of
from mmrnn.types.records import Blob, Record, RecordSource, Span

NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
"""Key and suffix of a member's name; other names are no part of a record."""

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "jp2", "avif")

TEXTS = ("txt", "caption")

MAX_TEXT = 2**28
"""Largest member that is read as text."""

MAX_EXTENSION = 2**20
"""Largest member that only describes the next one: a name of any length is read into memory."""

DAMAGED = "a tar shard is damaged"
CUT = "a tar shard is cut"


@dataclass(frozen=True, slots=True)
class FileRange(Blob):
    """Bytes of a file in a known state."""

    path: str
    stamp: Stamp
    offset: int
    length: int
    file_name: None = None

    def read(self) -> bytes:
        """Return the bytes. See `Blob`."""
        return read_range(self.path, self.stamp, self.offset, self.length)


class TarShard(RecordSource):
    """Records of an uncompressed tar file.

    Members with the same name up to the first dot of its last part, one after the other, are a record. Its content is
    that of `.json`, an object, with the text of `.txt` as `txt`; images are its blobs, by the last part of their name.
    Nothing is extracted: names are labels.

    Args:
        path: of the file, or its URL.
        stamp: state of the file in which it is read.
    """

    columns: ClassVar = {"offset": "<u8", "length": "<u4"}

    def __init__(self, path: str, stamp: Stamp) -> None:
        self.path, self.stamp = path, stamp

    def scan(self) -> Iterator[tuple[Span, Record]]:
        """Yield the records, then what is wrong with the end of the file. See `RecordSource`."""
        with open_file(self.path) as file:
            if file.read(2) == b"\x1f\x8b":
                raise ValueError(f"{self.path} is compressed and cannot be read by offset; unpack it with gunzip")
            file.seek(0)
            members = _Members(file, self.stamp.size)
            for group in _groups(members, whole=True):
                yield (group.start, group.stop - group.start), self._record(group, file, 0)
            if members.fault is not None:
                if not members.count:
                    raise ValueError(f"{self.path} is no tar file: {members.fault}")
                yield (0, 0), Record(members.fault)

    def read(self, span: Span) -> Record:
        """Return the record at (offset, length). See `RecordSource`."""
        offset, length = span
        if is_url(self.path) and length <= MAX_CACHED:
            read_range(self.path, self.stamp, offset, length)  # one request, from which the parts are taken
        file = io.BufferedReader(_RangeReader(self.path, self.stamp, offset, length), 4096)
        groups = list(_groups(_Members(file, length), whole=False))
        if len(groups) != 1:
            raise RecordError("a file of the data was changed since the run began", self.path)
        return self._record(groups[0], file, offset)

    def _record(self, group: "_Group", file: io.IOBase, base: int) -> Record:
        blobs: dict[str, Blob] = {}
        content: Any = {}
        try:
            for member in group.members:
                _check_member(member)
            for member in group.members:
                suffix = member.name.rpartition(".")[2].lower()
                if suffix == "json":
                    content = {**_read_json(file, member), **content}
                elif suffix in TEXTS:
                    content["txt"] = _read_text(file, member)
                elif suffix in IMAGES:
                    name = member.name.rpartition("/")[2]
                    blobs[name] = FileRange(self.path, self.stamp, base + member.offset_data, member.size)
        except RecordError as error:
            content = error
        return Record(content, blobs, group.key)


@dataclass
class _Group:
    """Members of one key, from the first header to the end of the last content."""

    key: str
    start: int
    stop: int
    members: list[tarfile.TarInfo] = field(default_factory=list)


class _Header(tarfile.TarInfo):
    """Header of a member, refused where its size cannot be true."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Header":
        made = super().frombuf(buf, encoding, errors)
        describes = made.type in (*tarfile.GNU_TYPES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if made.size < 0 or (describes and made.type != tarfile.GNUTYPE_SPARSE and made.size > MAX_EXTENSION):
            raise tarfile.InvalidHeaderError("invalid size")
        return made


class _Members:
    """Members of a tar file in turn.

    Attributes:
        count: number of members so far.
        fault: why the file ends before its end; None: it is whole (so far).
    """

    def __init__(self, file: io.IOBase, size: int) -> None:
        self.file, self.size = file, size
        self.count, self.fault = 0, None

    def __iter__(self) -> Iterator[tuple[int, int, tarfile.TarInfo]]:
        """Yield where each member begins and ends, and its header; with a fault the last one is not whole."""
        where = 0
        try:
            with tarfile.TarFile(fileobj=self.file, mode="r", tarinfo=_Header) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()
                    start, where = where, tar.offset
                    if where <= start:  # a size below zero
                        self.fault = RecordError(DAMAGED, f"header at byte {start}")
                        return
                    stop = member.offset_data + (member.size if member.isreg() else 0)
                    if stop > self.size:
                        self.fault = RecordError(CUT, f"{member.name!r:.80} needs {stop} bytes of {self.size}")
                        yield start, stop, member
                        return
                    self.count += 1
                    yield start, stop, member
                where = tar.offset
        except RecordError:
            raise
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            self.fault = RecordError(DAMAGED if where < self.size else CUT, f"after byte {where}: {error}")
            return
        self.file.seek(where)
        end = self.file.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE:
            self.fault = RecordError(CUT, f"it has no end mark at byte {where}")
        elif any(end):
            self.fault = RecordError(DAMAGED, f"header at byte {where}")


def _groups(members: _Members, *, whole: bool) -> Iterator[_Group]:
    """Members of one key, one after the other; a last group that may be half, at a cut of a `whole` file, is none."""
    group: _Group | None = None
    for start, stop, member in members:
        found = NAME.fullmatch(member.name)
        if found is None or member.isdir():
            continue
        key = found.group(1)
        if group is None or key != group.key:
            if group is not None:
                yield group
            group = _Group(key, start, stop)
        if members.fault is not None:
            return
        group.stop = stop
        group.members.append(member)
    if group is not None and (members.fault is None or not whole):
        yield group


def _check_member(member: tarfile.TarInfo) -> None:
    if not member.isreg() or member.issparse():
        raise RecordError("a member of a tar shard is no regular file", repr(member.name)[:80])
    path = PureWindowsPath(member.name)
    if path.root or ".." in path.parts:
        raise RecordError("a member of a tar shard has an absolute name, or one with ..", repr(member.name)[:80])


def _read_json(file: io.IOBase, member: tarfile.TarInfo) -> dict[str, Any]:
    try:
        found = json.loads(_read_text(file, member))
    except RecursionError:
        raise RecordError("a .json of a tar shard is no JSON", "nested too deeply") from None
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError("a .json of a tar shard is no JSON", str(error)) from None
    if not isinstance(found, dict):
        raise RecordError("a record must be an object", kind_of(found))
    return found


def _read_text(file: io.IOBase, member: tarfile.TarInfo) -> str:
    if member.size > MAX_TEXT:
        raise RecordError("a text of a tar shard is too long", f"{member.size} bytes, {MAX_TEXT} are allowed")
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError("a text of a tar shard is not UTF-8", f"byte {error.start}") from None


class _RangeReader(io.RawIOBase):
    """Part of a file as a file."""

    def __init__(self, path: str, stamp: Stamp, offset: int, length: int) -> None:
        self.path, self.stamp, self.offset, self.length, self.position = path, stamp, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (0, self.position, self.length)[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.length - self.position))
        if count:
            buffer[:count] = read_range(self.path, self.stamp, self.offset + self.position, count)
            self.position += count
        return count
