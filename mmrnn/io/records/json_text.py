"""Values of a JSON text of any size, one after the other, with their places in the file."""

import codecs
import json
import re
from collections.abc import Iterator
from io import IOBase
from typing import Any, NamedTuple

BLOCK = 2**22
"""Bytes that are read at once."""

MAX_VALUE = 2**30
"""Longest value in characters."""

MARGIN = 16
"""Longest beginning of a token (`-Infinity`, `\\uD83D\\uDE00`) that the end of a block may cut."""

SPACE = re.compile(r"[ \t\n\r]*")


class Located(NamedTuple):
    """A value, and its place in the file in bytes."""

    offset: int
    length: int
    value: Any


class JsonText:
    """JSON text of a file, decoded a block at a time.

    Args:
        file: in UTF-8, with or without a byte order mark.
        name: of the file in messages.
    """

    def __init__(self, file: IOBase, name: str) -> None:
        self.file, self.name = file, name
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.json = json.JSONDecoder()
        self.text, self.position, self.offset, self.bytes_read = "", 0, 0, 0
        if self.peek(skip=False) == "\ufeff":
            self._advance(1)

    def peek(self, skip: bool = True) -> str:
        """Return the next character, white space skipped unless `skip` is false; empty: the text ends."""
        while True:
            if skip:
                self._advance(SPACE.match(self.text, self.position).end() - self.position)
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._read():
                return ""

    def take(self, character: str) -> bool:
        """Move behind the next character if it is this one; return whether it is."""
        if self.peek() != character:
            return False
        self._advance(1)
        return True

    def value(self) -> Located:
        """Return the next value.

        Raises:
            ValueError: there is no JSON here, or no UTF-8.
        """
        self.peek()
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self.text) - MARGIN
                if cut and self._read():
                    continue
                self._advance(error.pos - self.position)
                raise self.fault(error.msg) from None
            except RecursionError:
                raise self.fault("nested too deeply") from None
            except ValueError as error:  # a number of too many digits
                raise self.fault(str(error)) from None
            if end > len(self.text) - MARGIN and self._read():
                continue
            start = self.offset
            self._advance(end - self.position)
            return Located(start, self.offset - start, value)

    def elements(self) -> Iterator[Located]:
        """Yield the elements of a list, whose `[` is next.

        Raises:
            ValueError: see `value`.
        """
        self.take("[")
        if self.take("]"):
            return
        while True:
            yield self.value()
            if self.take("]"):
                return
            if not self.take(","):
                raise self.fault("Expecting ',' delimiter")

    def finish(self) -> None:
        """Raise `ValueError` unless the text ends here."""
        if self.peek():
            raise self.fault("Extra data")

    def fault(self, reason: str) -> ValueError:
        """Return the error of a file that is no JSON at this place."""
        return ValueError(
            f"{self.name} is not JSON ({reason}, byte {self.offset}); a file with one record a line must end in .jsonl"
        )

    def _advance(self, characters: int) -> None:
        end = self.position + characters
        # White space has as many bytes as characters, and so has ASCII.
        self.offset += characters if self.text.isascii() else len(self.text[self.position : end].encode())
        self.position = end

    def _read(self) -> bool:
        """Read another block, twice as large where a value does not fit; return False at the end of the file."""
        left = self.text[self.position :]
        if len(left) > MAX_VALUE:
            raise self.fault(f"a value of more than {MAX_VALUE} characters")
        while True:
            content = self.file.read(max(BLOCK, len(left)))
            self.bytes_read += len(content)
            try:
                more = self.decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                place = self.bytes_read - len(error.object) + error.start
                raise ValueError(f"{self.name} is not UTF-8 (byte {place}); save it as UTF-8") from None
            if more or not content:
                break
        if more:
            self.text, self.position = left + more, 0
        return bool(more)
