"""Contracts of record files: one file of many records, each read by itself."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Blob(Protocol):
    """Bytes within a record file, such as those of an image, read on demand.

    Attributes:
        file_name: of the file that takes the place of missing bytes; None: there is none.
    """

    file_name: str | None

    @abstractmethod
    def read(self) -> bytes | None:
        """Return the bytes; None: they are missing.

        Raises:
            RecordError: they cannot be read (any more).
        """


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        content: of JSON, or a table's row by column; a `RecordError` where a scan finds the record broken.
        blobs: files that are stored with the record, by the name under which `content` knows them.
        name: of the record in its file, such as the key of a tar shard; empty: it has none but its number.
    """

    content: Any
    blobs: Mapping[str, Blob] = field(default_factory=dict)
    name: str = ""


Span = tuple[int, ...]
"""Position of a record in its file, a number for each column of `RecordSource.columns`."""


@runtime_checkable
class RecordSource(Protocol):
    """File of records of one format.

    Attributes:
        columns: numpy type of each number of a position, by its name.
    """

    columns: Mapping[str, str]

    @abstractmethod
    def scan(self) -> Iterator[tuple[Span, Record]]:
        """Yield position and record of every record in turn, the broken ones included.

        The blobs of these records may be unreadable: a scan does not read images.

        Raises:
            ValueError: the file as a whole cannot be read.
        """

    @abstractmethod
    def read(self, span: Span) -> Record:
        """Return the record at a position.

        Raises:
            RecordError: it cannot be read (any more).
        """
