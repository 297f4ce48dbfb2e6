"""Base of the readers: records of one or many files, read by their position."""

import os
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from mmrnn.data.readers.dialogue import check_characters
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.rgb import Decoding
from mmrnn.io.errors import RecordError, first_line
from mmrnn.io.records.files import Stamp, expand, is_url, stamp
from mmrnn.io.records.index import (
    Fault,
    IndexWriter,
    RecordIndex,
    index_path,
    is_worth_storing,
    load_index,
    one_at_a_time,
    save_index,
)
from mmrnn.types import ImageSource, MapDataset, Sample
from mmrnn.types.records import Record, RecordSource

PARSER = 1
"""Version of what the readers accept; a stored index of another version is made again."""


class Parsed(NamedTuple):
    """Sample of a record, and the reasons for which parts of the record are left out."""

    sample: Sample
    notes: list[str]


class RecordDataset(MapDataset):
    """Samples of the records of one or many files.

    Each file has an index of the positions of its valid records (16 to 28 bytes a record), which is made by reading
    the file once, at first use, and stored beside the file (hidden, `.NAME.KEY.index`) or in `index_folder`: it holds
    as long as size and modification time of the file are the same, and all processes of a machine map the same copy.
    Small files (below 1 MiB), files written in the last two seconds, and any file with `verify` are indexed in memory.

    A subclass names its formats and makes a sample of a record; `data/readers/text.py` is the shortest.

    Args:
        file: path, URL (fsspec), or pattern with `{000..099}`, `*`.
        image_folder: root of the images' paths; None: the folder of `file`.
        verify: check at first use that every image file exists, and skip the record if not.
        max_pixels: larger images are refused.
        decoding: way to RGB.
        absolute_paths: accept absolute paths of images, so that a record can name any file of the machine.
        holdout: share of the records that is not trained on, selected by a hash of their ids.
        split: `train`, or `holdout` for that share.
        index_folder: of the stored indices; None: that of each file.

    Attributes:
        formats: class of each kind of file by its suffix; the first is that of files with another suffix.
        wanted: kind of file, in messages.

    Raises:
        ValueError: `holdout` is outside 0 to 1.
    """

    formats: ClassVar[Mapping[str, type]] = {}
    wanted: ClassVar[str] = "file"

    def __init__(
        self,
        *,
        file: str | None,
        image_folder: str | None,
        verify: bool,
        max_pixels: int,
        decoding: Decoding,
        absolute_paths: bool,
        holdout: float,
        split: Literal["train", "holdout"],
        index_folder: str | None,
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        self.file, self.image_folder, self.verify, self.max_pixels = file, image_folder, verify, max_pixels
        self.decoding, self.absolute_paths, self.index_folder = decoding, absolute_paths, index_folder
        self.holdout, self.split, self.limit = holdout, split, None

    @abstractmethod
    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a record.

        Args:
            record: content and what is stored with it.
            id: of the sample.
            images: makes images of the names in the record.

        Raises:
            ValueError: the record is invalid; a `RecordError` has a reason that is the same for all such records.
        """

    def source(self, path: str, stamp: Stamp) -> RecordSource:
        """Return the records of a file in a known state.

        Raises:
            ValueError: it cannot be read.
        """
        suffix = os.path.splitext(path)[1].lower()
        return self.formats.get(suffix, next(iter(self.formats.values())))(path, stamp)

    def index_key(self) -> dict[str, Any]:
        """Return the knobs on which the validity of a record depends."""
        return {"absolute_paths": self.absolute_paths}

    def __len__(self) -> int:
        return len(self._selection) if self._selection is not None else self._shards.ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`.

        Raises:
            IndexError: there is none.
            RecordError: the record cannot be read any more.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample ({index}) must lie between 0 and {len(self) - 1}")
        place = index if self._selection is None else int(self._selection[index])
        number = bisect_right(self._shards.ends, place)
        row = place - (self._shards.ends[number - 1] if number else 0)
        shard = self._shards.shards[number]
        _, record_number, *span = shard.index.rows[row].item()
        try:
            record = self._source(number).read(tuple(span))
            id = self._id(record, shard.prefix, record_number)
            return self.parse(record, id, self._images(shard.path)).sample
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(str(error)) from None

    def images(self) -> Iterator[ImageSource]:
        """Iterate over all distinct images."""
        seen = set()
        for index in range(len(self)):
            for image in self[index].images:
                if image.key not in seen:
                    seen.add(image.key)
                    yield image

    def held_out(self, samples: int) -> "dict[str, RecordDataset]":
        """Return the first `samples` records that are not trained on, as the split `records`."""
        if not self.holdout:
            return {}
        _ = self._shards  # made once, for both
        rest = copy(self)
        rest.__dict__.pop("_selection", None)
        rest.split, rest.limit = "holdout", samples
        return {"records": rest} if len(rest) else {}

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Id (or number, `#12`, counted from 0) of each record left out, and the reason with its details."""
        return [(fault.id, fault.message) for fault in self._shards.faults() if fault.message is not None]

    def refused(self) -> list[tuple[str, str]]:
        """Id of each record left out, and the reason with its details: `skipped`."""
        return self.skipped

    def left_out(self) -> list[tuple[str, str]]:
        """Id of each record that is left out, wholly or a part of it, and the reason, the same for all such records."""
        return [(fault.id, fault.reason) for fault in self._shards.faults()]

    @cached_property
    def _selection(self) -> np.ndarray | None:
        """Numbers of the records of this split; None: all."""
        if not self.holdout and self.split == "train":
            return None
        bound = int(self.holdout * 2**32)
        held = [shard.index.rows["digest"] < bound for shard in self._shards.shards]
        chosen = np.concatenate(held) == (self.split == "holdout")
        numbers = np.flatnonzero(chosen)[: self.limit]
        return numbers.astype("<u4") if len(chosen) < 2**32 else numbers

    @cached_property
    def _shards(self) -> "_Shards":
        """Files and their indices.

        Raises:
            ValueError: a file or folder does not exist, is not of this format, or there is no valid record.
        """
        if self.file is None:
            raise ValueError(f"data.file is not set; set it to the {self.wanted}")
        if self.image_folder is not None and not Path(self.image_folder).is_dir():
            raise ValueError(
                f"data.image_folder ({self.image_folder}) is no folder; set it to the root of the images' paths"
            )
        try:
            paths = expand(self.file)
        except OSError as error:
            raise ValueError(f"data.file ({self.file}) cannot be listed: {first_line(error)}") from None
        if not paths:
            raise ValueError(f"data.file ({self.file}) matches no file; set it to the {self.wanted}")
        shards, missing = [], []
        for path in paths:
            prefix = "" if len(paths) == 1 else os.path.basename(path)
            try:
                shards.append(self._shard(path, prefix))
            except ValueError as error:
                if len(paths) == 1:
                    raise
                missing.append(Fault(prefix, "a shard cannot be read", f"a shard cannot be read ({error})"))
        found = _Shards(shards, missing)
        if not found.ends or not found.ends[-1]:
            first = next(found.faults(), None)
            reason = f"; the first ({first.id}): {first.message or first.reason}" if first else ""
            raise ValueError(f"{self.file} holds no valid record{reason}")
        return found

    def _shard(self, path: str, prefix: str) -> "_Shard":
        """File and its index, stored or new.

        Raises:
            ValueError: the file cannot be read.
        """
        try:
            state = stamp(path)
            return _Shard(path, state, prefix, self._index(path, state, prefix))
        except FileNotFoundError:
            raise ValueError(f"data.file ({path}) does not exist; set it to the {self.wanted}") from None
        except OSError as error:
            raise ValueError(f"data.file ({path}) cannot be read: {error.strerror or first_line(error)}") from None

    def _index(self, path: str, state: Stamp, prefix: str) -> RecordIndex:
        source = self.source(path, state)
        dtype = np.dtype([("digest", "<u4"), ("number", "<u4"), *source.columns.items()])
        if self.verify or not is_worth_storing(state) or (is_url(path) and self.index_folder is None):
            return self._make_index(source, dtype, path, prefix)
        key = {"reader": type(self).__name__, "parser": PARSER, "prefix": prefix, **self.index_key()}
        stored = index_path(path, key, self.index_folder)
        with one_at_a_time(stored):
            if (found := load_index(stored, state, dtype)) is None:
                found = self._make_index(source, dtype, path, prefix)
                if save_index(stored, found, state):
                    found = load_index(stored, state, dtype) or found
        return found

    def _make_index(self, source: RecordSource, dtype: np.dtype, path: str, prefix: str) -> RecordIndex:
        writer, images = IndexWriter(dtype), self._images(path)
        for number, (span, record) in enumerate(source.scan()):
            id = self._id(record, prefix, number)
            try:
                if isinstance(record.content, RecordError):
                    raise record.content
                parsed = self.parse(record, id, images)
            except ValueError as fault:
                reason = fault.reason if isinstance(fault, RecordError) else str(fault)
                writer.fault(Fault(id, reason, str(fault)))
                continue
            writer.add((_digest(id), number, *span))
            for note in parsed.notes:
                writer.fault(Fault(id, note, None))
        return writer.index()

    def _id(self, record: Record, prefix: str, number: int) -> str:
        """Id of a record: its own, else its name in the file, else its number."""
        own = record.content.get("id") if isinstance(record.content, dict) else None
        for id in (own, f"{prefix}/{record.name}".lstrip("/") if record.name else None):
            if isinstance(id, int | float | str):
                try:
                    check_characters(str(id), "id")
                except RecordError:
                    continue
                return str(id)
        return f"{prefix}#{number}"

    def _source(self, number: int) -> RecordSource:
        sources = self.__dict__.setdefault("_sources", {})
        if number not in sources:
            shard = self._shards.shards[number]
            sources[number] = self.source(shard.path, shard.stamp)
        return sources[number]

    def _images(self, path: str) -> ImageFolder:
        folder = self.image_folder if self.image_folder is not None else os.path.dirname(path)
        return ImageFolder(folder, self.verify, self.max_pixels, self.decoding, self.absolute_paths)


class _Shard(NamedTuple):
    """A file, its state, the beginning of the ids of its records without one, and its index."""

    path: str
    stamp: Stamp
    prefix: str
    index: RecordIndex


class _Shards:
    """All files: with the last positions of their records, and the faults of files that cannot be read."""

    def __init__(self, shards: list[_Shard], missing: list[Fault]) -> None:
        self.shards, self.missing = shards, missing
        self.ends = list(accumulate(len(shard.index.rows) for shard in shards))

    def faults(self) -> Iterator[Fault]:
        """Yield the faults of files, then those of records."""
        yield from self.missing
        for shard in self.shards:
            yield from shard.index.faults()


def _digest(id: str) -> int:
    return int.from_bytes(sha256(id.encode()).digest()[:4], "big")
