"""Base of the readers: records of one or many files, read by their position."""

import os
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from mmrnn.data.orders import ShardOrder
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.record_shards import Shard, Shards, make_index, open_shards, record_id
from mmrnn.data.sampler import Order
from mmrnn.io.errors import RecordError, first_line
from mmrnn.io.records.files import Stamp, expand, is_url, stamp
from mmrnn.io.records.index import RecordIndex, index_path, stored_index, worth_storing
from mmrnn.io.records.shard_copies import local_copy
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

    Each file has an index of the positions of its valid records (16 to 32 bytes a record), which is made by reading
    the file once, at first use, and stored beside the file (hidden, `.NAME.KEY.index`) or in `index_folder`: it holds
    as long as size and modification time of the file are the same, and all processes of a machine map the same copy.
    Small files (below 1 MiB), files written in the last two seconds, and any file with `verify` are indexed in memory.

    A subclass names its formats and makes a sample of a record (`PlainText` is the shortest); with a card it is a
    reader.

    Args:
        file: path, URL (fsspec), or pattern with `{000..099}`, `*`.
        image_files: folder of the images that are not stored with their record, and limits of all; with `verify` a
            record whose image is missing is skipped at first use.
        holdout: share of the records that is not trained on, selected by a hash of their ids.
        split: `train`, or `holdout` for that share.
        index_folder: of the stored indices; None: that of each file.
        sequential: read shard by shard, in an order of its own (see `ShardOrder`).
        shuffle_buffer: consecutive records that are shuffled among themselves where `sequential`.
        cache_folder: of whole copies of shards at URLs, made when a shard is first read; None: parts are read.
        cache_gib: of all copies; the oldest are removed.

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
        image_files: ImageFolder | None = None,
        holdout: float = 0.0,
        split: Literal["train", "holdout"] = "train",
        index_folder: str | None = None,
        sequential: bool = False,
        shuffle_buffer: int = 10_000,
        cache_folder: str | None = None,
        cache_gib: float = 100.0,
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        self.file, self.image_files, self.index_folder = file, image_files or ImageFolder(), index_folder
        self.holdout, self.split, self.limit = holdout, split, None
        self.sequential, self.shuffle_buffer = sequential, shuffle_buffer
        self.cache_folder, self.cache_gib = cache_folder, cache_gib

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
        return self.source_class(path)(path, stamp)

    def index_key(self) -> dict[str, Any]:
        """Return the knobs on which the validity of a record depends."""
        return {"absolute_paths": self.image_files.absolute_paths}

    def __len__(self) -> int:
        return len(self._selection) if self._selection is not None else self._shards.ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`.

        Raises:
            IndexError: there is none.
            RecordError: the record cannot be read any more.
        """
        return self.read_record(index)[1]

    def read_record(self, index: int) -> tuple[Record, Sample]:
        """Return sample `index`, and before it the record that it is made of.

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
            record = self._read(number, tuple(span))
            id = record_id(record, shard.prefix, record_number)
            return record, self.parse(record, id, self._images(shard.path)).sample
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(str(error)) from None

    def files(self) -> list[tuple[str, Stamp]]:
        """Return the path and the state of every file that can be read."""
        return [(shard.path, shard.stamp) for shard in self._shards.shards]

    def order(self, seed: int) -> Order | None:
        """Return the order of a sequential data set; None: it is shuffled as a whole."""
        if not self.sequential:
            return None
        ends = np.array(self._shards.ends)
        if self._selection is not None:
            ends = np.searchsorted(self._selection, ends)
        return ShardOrder(np.diff(ends, prepend=0).tolist(), buffer=self.shuffle_buffer, seed=seed)

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
        rest.split, rest.limit, rest.sequential = "holdout", samples, False
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
    def _shards(self) -> Shards:
        """Files and their indices.

        Raises:
            ValueError: a file or folder does not exist, is not of this format, or there is no valid record.
        """
        if self.file is None:
            raise ValueError(f"data.file is not set; set it to the {self.wanted}")
        folder = self.image_files.folder
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"data.image_folder ({folder}) is no folder; set it to the root of the images' paths")
        try:
            paths = expand(self.file)
        except OSError as error:
            raise ValueError(f"data.file ({self.file}) cannot be listed: {first_line(error)}") from None
        if self.sequential and self.cache_folder is None and any(map(is_url, paths)):
            raise ValueError(f"data.cache_folder is not set; sequential=true copies the shards of {self.file} there")
        if not paths:
            raise ValueError(f"data.file ({self.file}) matches no file; set it to the {self.wanted}")
        found = open_shards(paths, self._shard)
        if not found.ends or not found.ends[-1]:
            first = next(found.faults(), None)
            reason = f"; the first ({first.id}): {first.message or first.reason}" if first else ""
            raise ValueError(f"{self.file} holds no valid record{reason}")
        return found

    @cached_property
    def _sources(self) -> dict[int, RecordSource]:
        """Records of the shards that were read, by their number."""
        return {}

    def _shard(self, path: str, prefix: str) -> Shard:
        """File and its index, stored or new.

        Raises:
            ValueError: the file cannot be read.
        """
        try:
            state = stamp(path)
            return Shard(path, state, prefix, self._index(path, state, prefix))
        except FileNotFoundError:
            raise ValueError(f"data.file ({path}) does not exist; set it to the {self.wanted}") from None
        except OSError as error:
            raise ValueError(f"data.file ({path}) cannot be read: {error.strerror or first_line(error)}") from None

    def _index(self, path: str, state: Stamp, prefix: str) -> RecordIndex:
        dtype = np.dtype([("digest", "<u4"), ("number", "<u4"), *self.source_class(path).columns.items()])
        folder = self.index_folder or (self.cache_folder if is_url(path) else None)
        if self.image_files.verify or not worth_storing(state) or (is_url(path) and folder is None):
            return self._make_index(path, state, dtype, prefix)
        key = {"reader": type(self).__name__, "parser": PARSER, "prefix": prefix, **self.index_key()}
        make = partial(self._make_index, path, state, dtype, prefix)
        return stored_index(index_path(path, key, folder), state, dtype, make)

    def _make_index(self, path: str, state: Stamp, dtype: np.dtype, prefix: str) -> RecordIndex:
        images = self._images(path)

        def check(record: Record, id: str) -> list[str]:
            return self.parse(record, id, images).notes

        return make_index(self._open(path, state), dtype, prefix, check)

    def _read(self, number: int, span: tuple[int, ...]) -> Record:
        """Record of a shard; a copy that was removed since is made again."""
        shard = self._shards.shards[number]
        copied = self.cache_folder is not None and is_url(shard.path)
        if number in self._sources:
            try:
                return self._sources[number].read(span)
            except RecordError:
                if not copied:
                    raise
        self._sources[number] = self._open(shard.path, shard.stamp)
        return self._sources[number].read(span)

    def _open(self, path: str, state: Stamp) -> RecordSource:
        """Records of a file, or of its copy."""
        if self.cache_folder is None or not is_url(path):
            return self.source(path, state)
        try:
            copy = local_copy(path, state, self.cache_folder, int(self.cache_gib * 2**30))
        except FileNotFoundError:
            raise RecordError("a file of the data is not there any more", path) from None
        return self.source(copy, stamp(copy))

    def source_class(self, path: str) -> type:
        """Return the class, a `RecordSource`, that reads a file, by its suffix."""
        return self.formats.get(os.path.splitext(path)[1].lower(), next(iter(self.formats.values())))

    def _images(self, path: str) -> ImageFolder:
        files = self.image_files
        return files if files.folder is not None else replace(files, folder=os.path.dirname(path))
