"""Rows of a Parquet file, images inside; a row group is read at once."""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from mmrnn.io.errors import RecordError, first_line
from mmrnn.io.optional import require
from mmrnn.io.records import files
from mmrnn.io.records.files import Stamp, is_url, open_file
from mmrnn.types.records import Blob, Record, RecordSource, Span

MAX_GROUP = 2**32
"""Largest row group in bytes, decompressed: one is held in memory."""

MAX_TABLES = 2**28
"""Bytes of decompressed columns that a process keeps; the last ones are kept in any case."""

ROWS = 1024
"""Rows that a scan holds at once."""

THRIFT_LIMIT = 2**27
"""Largest text, and most elements of a list, in the metadata of a file."""


@dataclass(frozen=True, slots=True)
class Cell(Blob):
    """Bytes in a cell of a table.

    Attributes:
        path: of the file.
        stamp: its state.
        row: in the file.
        column: name.
        index: in the list that the cell holds; None: it holds no list.
        file_name: of the file that takes the place of missing bytes.
    """

    path: str
    stamp: Stamp
    row: int
    column: str
    index: int | None
    file_name: str | None = None

    def read(self) -> bytes | None:
        """Return the bytes. See `Blob`."""
        found = _open_table(self.path, self.stamp).cell(self.row, self.column)
        if self.index is not None:
            found = found[self.index] if found is not None and self.index < len(found) else None
        if isinstance(found, dict):
            found = found.get("bytes")
        return found


class ParquetTable(RecordSource):
    """Rows of a Parquet file by column, in the layout of Hugging Face's `datasets`.

    An image column holds `{bytes, path}`, bytes alone, or a list of either. In the content stands a name for each
    image, and its bytes are a blob of that name, with the path as that of the file which takes the place of missing
    bytes.

    Args:
        path: of the file, or its URL.
        stamp: state of the file in which it is read.

    Raises:
        ImportError: pyarrow is not installed.
    """

    columns: ClassVar = {"row": "<u8"}

    def __init__(self, path: str, stamp: Stamp) -> None:
        require("pyarrow.parquet", "pyarrow", wanted_by=path, extra="data")
        self.path, self.stamp = path, stamp

    def scan(self) -> Iterator[tuple[Span, Record]]:
        """Yield the rows; a row group that cannot be read is one broken record. See `RecordSource`."""
        try:
            table = _open_table(self.path, self.stamp)
        except RecordError as error:
            raise ValueError(f"{self.path}: {error}") from None
        row = 0
        for group, end in enumerate(table.ends):
            try:
                for content in table.rows(group):
                    yield (row,), self._record(table, row, content)
                    row += 1
                if row != end:
                    raise RecordError("a row group is damaged", f"group {group} has {row} of {end} rows")
            except RecordError as error:
                yield (row,), Record(error, name=f"row-{row}")
            row = end

    def read(self, span: Span) -> Record:
        """Return the row. See `RecordSource`."""
        [row] = span
        table = _open_table(self.path, self.stamp)
        return self._record(table, row, table.row(row))

    def _record(self, table: "_Table", row: int, content: dict[str, Any]) -> Record:
        blobs: dict[str, Blob] = {}
        for column in table.image_columns:
            value = content.get(column)
            if isinstance(value, list):
                content[column] = [self._name(blobs, row, column, cell, n) for n, cell in enumerate(value)]
            elif value is not None:
                content[column] = self._name(blobs, row, column, value, None)
        return Record(content, blobs, f"row-{row}")

    def _name(self, blobs: dict[str, Blob], row: int, column: str, cell: Any, index: int | None) -> str | None:
        """Name of an image; None: there is none."""
        if cell is None:
            return None
        name = column if index is None else f"{column}-{index}"
        path = cell.get("path") if isinstance(cell, dict) else None
        blobs[name] = Cell(self.path, self.stamp, row, column, index, path if isinstance(path, str) else None)
        return name


class _Table:
    """An open file: its row groups, and the columns that were read last.

    Attributes:
        damage: errors that pyarrow raises for a damaged file.
    """

    def __init__(self, path: str, stamp: Stamp) -> None:
        parquet = require("pyarrow.parquet", "pyarrow", wanted_by=path, extra="data")
        self.path = path
        arrow_error = require("pyarrow", "pyarrow", wanted_by=path, extra="data").ArrowException
        self.damage = OSError, ValueError, arrow_error
        try:
            if files.stamp(path) != stamp:
                raise RecordError("a file of the data was changed since the run began", path)
            self.file = parquet.ParquetFile(
                open_file(path) if is_url(path) else path,
                pre_buffer=False,
                thrift_string_size_limit=THRIFT_LIMIT,
                thrift_container_size_limit=THRIFT_LIMIT,
            )
        except FileNotFoundError:
            raise RecordError("a file of the data is not there any more", path) from None
        except RecordError:
            raise
        except self.damage as error:
            raise RecordError("a file is no Parquet file, or is cut", first_line(error)) from None
        metadata = self.file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self.sizes = [group.total_byte_size for group in groups]
        self.ends = list(accumulate(group.num_rows for group in groups))
        self.image_columns = [field.name for field in self.file.schema_arrow if _is_image(field.type)]
        self.light = _light_columns([self.file.schema.column(n).path for n in range(len(self.file.schema))], self)
        self.tables: OrderedDict[tuple[int, tuple[str, ...]], Any] = OrderedDict()

    def rows(self, group: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of a group without the bytes of images; raise `RecordError` where it cannot be read."""
        self._check(group)
        try:
            batches = self.file.iter_batches(ROWS, row_groups=[group], columns=self.light, use_threads=False)
            for batch in batches:
                yield from batch.to_pylist()
        except self.damage as error:
            raise RecordError("a row group cannot be read", f"group {group}: {first_line(error)}") from None

    def row(self, row: int) -> dict[str, Any]:
        """Row without the bytes of images."""
        group, within = self._place(row)
        return self._read(group, tuple(self.light)).slice(within, 1).to_pylist()[0]

    def cell(self, row: int, column: str) -> Any:
        """Cell with the bytes of its images."""
        group, within = self._place(row)
        return self._read(group, (column,)).column(0)[within].as_py()

    def _place(self, row: int) -> tuple[int, int]:
        group = bisect_right(self.ends, row)
        if group == len(self.ends):
            raise RecordError("a file of the data was changed since the run began", self.path)
        return group, row - (self.ends[group - 1] if group else 0)

    def _check(self, group: int) -> None:
        if not 0 <= self.sizes[group] <= MAX_GROUP:
            raise RecordError(
                "a row group is too large: write the file with smaller ones (row_group_size)",
                f"group {group} has {self.sizes[group]} bytes, {MAX_GROUP} are allowed",
            )

    def _read(self, group: int, columns: tuple[str, ...]) -> Any:
        if (group, columns) not in self.tables:
            self._check(group)
            try:
                found = self.file.read_row_group(group, columns=list(columns), use_threads=False)
            except self.damage as error:
                raise RecordError("a row group cannot be read", f"group {group}: {first_line(error)}") from None
            if found.num_rows != self.ends[group] - (self.ends[group - 1] if group else 0) or not found.num_columns:
                raise RecordError("a row group is damaged", f"group {group}")
            self.tables[group, columns] = found
            while len(self.tables) > 2 and sum(table.nbytes for table in self.tables.values()) > MAX_TABLES:
                self.tables.popitem(last=False)
        self.tables.move_to_end((group, columns))
        return self.tables[group, columns]


def _light_columns(leaves: list[str], table: _Table) -> list[str]:
    """Leaves of the columns without bytes of images, except where these alone say how many images there are."""
    images = [leaf for leaf in leaves if leaf.partition(".")[0] in table.image_columns]
    heavy = [leaf for leaf in images if leaf.endswith(".bytes")]
    counted = {leaf.partition(".")[0] for leaf in images if leaf not in heavy}
    return [leaf for leaf in leaves if leaf not in heavy or leaf.partition(".")[0] not in counted]


_tables: OrderedDict[tuple[int, str, Stamp], _Table] = OrderedDict()


def _open_table(path: str, stamp: Stamp) -> _Table:
    # By process: a forked worker must not share the position of the file.
    key = os.getpid(), path, stamp
    if key not in _tables:
        _tables[key] = _Table(path, stamp)
        while len(_tables) > files.MAX_OPEN // 8:
            _tables.popitem(last=False)
    _tables.move_to_end(key)
    return _tables[key]


def _is_image(type: Any) -> bool:
    types = require("pyarrow.types", "pyarrow", wanted_by="a Parquet file", extra="data")
    if types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type):
        return _is_image(type.value_type)
    if types.is_struct(type):
        return type.get_field_index("bytes") >= 0 and _is_image(type.field("bytes").type)
    return types.is_binary(type) or types.is_large_binary(type)
