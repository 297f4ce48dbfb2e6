"""Files of a data set with their indices, and how an index of valid records is made."""

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import accumulate
from random import Random
from typing import NamedTuple

import numpy as np

from mmrnn.data.readers.dialogue import check_characters
from mmrnn.io.errors import RecordError
from mmrnn.io.records.files import Stamp
from mmrnn.io.records.index import Fault, IndexWriter, RecordIndex
from mmrnn.types.records import Record, RecordSource


class Shard(NamedTuple):
    """A file of records.

    Attributes:
        path: of the file, or its URL.
        stamp: its state.
        prefix: beginning of the ids of records that have no id; empty for a single file.
        index: of its valid records.
    """

    path: str
    stamp: Stamp
    prefix: str
    index: RecordIndex


class Shards:
    """All files of a data set.

    Args:
        shards: files that can be read.
        missing: faults of the others.

    Attributes:
        ends: number of records up to the end of each file.
    """

    def __init__(self, shards: Sequence[Shard], missing: Sequence[Fault]) -> None:
        self.shards, self.missing = shards, missing
        self.ends = list(accumulate(len(shard.index.rows) for shard in shards))

    def faults(self) -> Iterator[Fault]:
        """Yield the faults of files, then those of records."""
        yield from self.missing
        for shard in self.shards:
            yield from shard.index.faults()


def open_shards(paths: Sequence[str], open_one: Callable[[str, str], Shard]) -> Shards:
    """Return the files that can be read, and the faults of the others.

    Args:
        paths: of the files; one that is named twice counts once.
        open_one: takes a path and a prefix, and returns the file with its index.

    Raises:
        ValueError: the only file cannot be read.
    """
    opened: dict[str, Shard | Fault | None] = dict.fromkeys(paths)
    alone = len(opened) == 1
    # In an order of its own: processes that begin together make the indices of different files.
    for path in Random(os.getpid()).sample(list(opened), len(opened)):
        prefix = "" if alone else os.path.basename(path)
        try:
            opened[path] = open_one(path, prefix)
        except ValueError as error:
            if alone:
                raise
            opened[path] = Fault(prefix, "a shard cannot be read", f"a shard cannot be read ({error})")
    found = list(opened.values())
    return Shards([one for one in found if isinstance(one, Shard)], [one for one in found if isinstance(one, Fault)])


def make_index(
    source: RecordSource, dtype: np.dtype, prefix: str, check: Callable[[Record, str], Sequence[str]]
) -> RecordIndex:
    """Return the index of the valid records of a file, which is read once.

    Args:
        source: of the records.
        dtype: of a row: `digest` of the id, `number` in the file, and the columns of the source.
        prefix: of the ids of records without one.
        check: takes a record and its id, and returns the reasons for which parts of it are left out; raises
            ValueError for an invalid record.

    Raises:
        ValueError: the file as a whole cannot be read.
    """
    writer = IndexWriter(dtype)
    for number, (span, record) in enumerate(source.scan()):
        id = record_id(record, prefix, number)
        try:
            if isinstance(record.content, RecordError):
                raise record.content
            notes = check(record, id)
        except ValueError as fault:
            reason = fault.reason if isinstance(fault, RecordError) else str(fault)
            writer.fault(Fault(id, reason, str(fault)))
            continue
        writer.add((id_digest(id), number, *span))
        for note in notes:
            writer.fault(Fault(id, note, None))
    return writer.index()


def record_id(record: Record, prefix: str, number: int) -> str:
    """Return the id of a record: its own, else its name in the file, else its number (`#12`, counted from 0)."""
    own = record.content.get("id") if isinstance(record.content, dict) else None
    for id in (own, f"{prefix}/{record.name}".lstrip("/") if record.name else None):
        if isinstance(id, int | float | str) and id != "":
            try:
                check_characters(str(id), "id")
            except RecordError:
                continue
            return str(id)
    return f"{prefix}#{number}"


def id_digest(id: str) -> int:
    """Return the hash of an id, uniform in 32 bits, by which records are held out."""
    return int.from_bytes(sha256(id.encode()).digest()[:4], "big")
