"""Records of JSON files by byte offset: a list, one record a line, and captions in COCO's form."""

import json
from abc import abstractmethod
from collections.abc import Iterator
from io import IOBase
from typing import Any, ClassVar

import numpy as np

from mmrnn.io.errors import RecordError
from mmrnn.io.records.files import Stamp, open_file, read_range
from mmrnn.io.records.json_text import MAX_VALUE, JsonText
from mmrnn.types.records import Record, RecordSource, Span

NO_JSON = "a line is no JSON"


class ByteRecords(RecordSource):
    """Records that each are a run of bytes of a text file.

    Args:
        path: of the file, or its URL.
        stamp: state of the file in which it is read.
    """

    columns: ClassVar = {"offset": "<u8", "length": "<u4"}

    def __init__(self, path: str, stamp: Stamp) -> None:
        self.path, self.stamp = path, stamp

    @abstractmethod
    def parse(self, text: bytes) -> Any:
        """Return the content of a record.

        Raises:
            RecordError: it is invalid.
        """

    def read(self, span: Span) -> Record:
        """Return the record at (offset, length). See `RecordSource`."""
        return Record(self.parse(read_range(self.path, self.stamp, *span)))


class Lines(ByteRecords):
    """Records of one line each; blank lines are none."""

    def scan(self) -> Iterator[tuple[Span, Record]]:
        """Yield the records. See `RecordSource`."""
        with open_file(self.path) as file:
            offset = self.skip_header(file)
            while line := file.readline(MAX_VALUE):
                start, offset = offset, offset + len(line)
                if line.isspace():
                    continue
                try:
                    if len(line) == MAX_VALUE:
                        raise RecordError("a line is too long", f"more than {MAX_VALUE} bytes")
                    found = Record(self.parse(line))
                except RecordError as error:
                    found = Record(error)
                yield (start, len(line)), found

    def skip_header(self, file: IOBase) -> int:
        """Move a file that is just open to its first record, and return the place of that."""
        mark = file.read(3)
        start = 3 if mark == b"\xef\xbb\xbf" else 0
        file.seek(start)
        return start


class JsonLines(Lines):
    """Records of a `.jsonl` file, one a line."""

    def parse(self, text: bytes) -> Any:
        """Return the record of a line. See `ByteRecords`."""
        try:
            return json.loads(decode_line(text))
        except RecursionError:
            raise RecordError(NO_JSON, "nested too deeply") from None
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(NO_JSON, str(error)) from None


class PlainLines(Lines):
    """Texts of a `.txt` file, one a line: records with the text as `text`."""

    def parse(self, text: bytes) -> Any:
        """Return the record of a line. See `ByteRecords`."""
        return {"text": decode_line(text).rstrip("\r\n")}


class JsonList(ByteRecords):
    """Records of a JSON file that holds a list of them."""

    def parse(self, text: bytes) -> Any:
        """Return an element of the list. See `ByteRecords`."""
        return _loads(text)

    def scan(self) -> Iterator[tuple[Span, Record]]:
        """Yield the records. See `RecordSource`."""
        with open_file(self.path) as file:
            text = JsonText(file, self.path)
            if text.peek() != "[":
                value = text.value().value
                text.finish()
                raise ValueError(f"{self.path} must hold a list of records, not {kind_of(value)}")
            for offset, length, value in text.elements():
                yield (offset, length), Record(value)
            text.finish()


class CocoCaptions(ByteRecords):
    """Captions of a JSON file in COCO's form, each a record of `id`, `image` (name of a file) and `caption`."""

    columns: ClassVar = {"offset": "<u8", "length": "<u4", "image_offset": "<u8", "image_length": "<u4"}

    def parse(self, text: bytes) -> Any:
        """Return an element of one of the lists. See `ByteRecords`."""
        return _loads(text)

    def read(self, span: Span) -> Record:
        """Return the caption at (offset, length, offset of its image, length of that). See `RecordSource`."""
        caption, image = (self.parse(read_range(self.path, self.stamp, *part)) for part in (span[:2], span[2:]))
        if not isinstance(caption, dict) or not isinstance(image, dict):
            raise RecordError("a file of the data was changed since the run began", self.path)
        return Record({"id": caption.get("id"), "image": image.get("file_name"), "caption": caption.get("caption")})

    def scan(self) -> Iterator[tuple[Span, Record]]:
        """Yield the records. See `RecordSource`."""
        with open_file(self.path) as file:
            text = JsonText(file, self.path)
            if text.peek() != "{":
                raise ValueError(f"{self.path} must be an object with the lists images and annotations (COCO)")
            places = self._places(text)
        if "images" not in places or "annotations" not in places:
            raise ValueError(f"{self.path} must have the lists images and annotations (COCO)")
        images, captions = places["images"], places["annotations"]
        images = images[np.argsort(images["key"], kind="stable")]
        at = np.searchsorted(images["key"], captions["key"])
        for caption, place in zip(captions, at, strict=True):
            span = int(caption["offset"]), int(caption["length"])
            if place == len(images) or images[place]["key"] != caption["key"]:
                yield (*span, 0, 0), Record(RecordError("a caption names an image that the file does not list"))
                continue
            span = (*span, int(images[place]["offset"]), int(images[place]["length"]))
            try:
                yield span, self.read(span)
            except RecordError as error:
                yield span, Record(error)

    def _places(self, text: JsonText) -> dict[str, np.ndarray]:
        """Offset, length and number of the image of each element of the two lists."""
        found = {}
        text.take("{")
        while not text.take("}"):
            name = text.value().value
            if not text.take(":"):
                raise text.fault("Expecting ':' delimiter")
            key = {"images": "id", "annotations": "image_id"}.get(name) if isinstance(name, str) else None
            if key is None or text.peek() != "[":
                text.value()
            else:
                rows = ((offset, length, _number(value, key)) for offset, length, value in text.elements())
                found[name] = np.fromiter(rows, [("offset", "<u8"), ("length", "<u4"), ("key", "<i8")])
            if not text.take(",") and text.peek() != "}":
                raise text.fault("Expecting ',' delimiter")
        return found


def decode_line(text: bytes) -> str:
    """Return the text of a line.

    Raises:
        RecordError: it is not UTF-8.
    """
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("a line is not UTF-8", f"byte {error.start} of the line") from None


def kind_of(value: Any) -> str:
    """Kind of a value in words."""
    names = {type(None): "null", dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "empty text" if value == "" else names.get(type(value), "a number")


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise RecordError("a file of the data was changed since the run began") from None


def _number(value: Any, key: str) -> int:
    """Value of a key; where it is no number, one that matches nothing: another for images than for captions."""
    number = value.get(key) if isinstance(value, dict) else None
    return number if type(number) is int and abs(number) < 2**62 else -(2**62) + (key == "id")
