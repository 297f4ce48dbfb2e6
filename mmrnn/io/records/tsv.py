"""Rows of a table of tab-separated values, one a line."""

from functools import cached_property
from io import IOBase
from typing import Any

from mmrnn.io.errors import RecordError
from mmrnn.io.records.files import Stamp, open_file
from mmrnn.io.records.json_files import Lines, decode_line

MAX_NAMES = 2**20
"""Longest line of names in bytes."""


class TsvTable(Lines):
    """Rows of a `.tsv` file by column. Tabs and line ends cannot be quoted.

    Args:
        path: of the file, or its URL.
        stamp: state of the file in which it is read.
        numbered: the columns are named "0", "1", ..., and the file has no line of names.
    """

    def __init__(self, path: str, stamp: Stamp, *, numbered: bool = False) -> None:
        super().__init__(path, stamp)
        self.numbered = numbered

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns in the first line.

        Raises:
            ValueError: the line is too long, or no text.
        """
        with open_file(self.path) as file:
            super().skip_header(file)
            line = file.readline(MAX_NAMES)
        try:
            return decode_line(line).rstrip("\r\n").split("\t")
        except RecordError as error:
            raise ValueError(f"{self.path} has no line of names: {error}") from None

    def skip_header(self, file: IOBase) -> int:
        """Move a file that is just open to its first row. See `Lines`."""
        start = super().skip_header(file)
        return start if self.numbered else start + len(file.readline(MAX_NAMES))

    def parse(self, text: bytes) -> dict[str, Any]:
        """Return the row of a line. See `ByteRecords`."""
        cells = decode_line(text).rstrip("\r\n").split("\t")
        names = [str(number) for number in range(len(cells))] if self.numbered else self.names
        if len(cells) != len(names):
            raise RecordError("a row has another number of cells than the line of names", f"{len(cells)}, {len(names)}")
        return dict(zip(names, cells, strict=True))
