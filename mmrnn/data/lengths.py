"""Lengths of all samples of a data set in positions, measured once and stored beside the data."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mmrnn.data.collate import Collator
from mmrnn.data.worker_loader import start_loader
from mmrnn.io.atomic import replace_file
from mmrnn.io.records.files import expand, is_url, stamp
from mmrnn.types import Alone, MapDataset, Ranks

VERSION = 1
"""Of the way to measure; stored lengths of another one are not read."""

AT_ONCE = 256
"""Samples that are measured between two steps of the progress."""


@dataclass(frozen=True)
class LengthStore:
    """Files that hold the lengths of data sets.

    Attributes:
        cards: all that the lengths depend on beside the layouts of the images: data, tokenizer and prompt. Size and
            time of change of the files that they name count as well.
        folders: where lengths are looked for, and written: the first that can be written to.
    """

    cards: Mapping[str, Any] = field(default_factory=dict)
    folders: Sequence[Path] = ()

    def load(self, dataset: MapDataset, collate: Collator) -> np.ndarray | None:
        """Return the stored lengths of a data set; None: there are none."""
        for folder in self.folders:
            try:
                found = np.load(folder / self._name(dataset, collate), mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                continue
            if found.dtype == np.int32 and found.shape == (len(dataset),):
                return found
        return None

    def save(self, dataset: MapDataset, collate: Collator, lengths: np.ndarray) -> Path | None:
        """Write lengths, and return their file; None: no folder can be written to."""
        for folder in self.folders:
            path = folder / self._name(dataset, collate)
            try:
                replace_file(path, lambda new: _write(new, lengths), lengths.nbytes)
            except OSError:
                continue  # a folder that is full, or of somebody else
            return path
        return None

    def _name(self, dataset: MapDataset, collate: Collator) -> str:
        layouts = {
            name: [repr(spec.image), repr(spec.layout(*spec.image.size))]
            for name, spec in sorted(collate.modalities.items())
        }
        key = [VERSION, self.cards, _stamps(self.cards), layouts, collate.max_length, len(dataset)]
        return f".lengths-{sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.npy"


def sample_lengths(
    dataset: MapDataset,
    collate: Collator,
    store: LengthStore,
    ranks: Ranks | None = None,
    *,
    workers: int = 0,
    track: Callable[[range], Iterator[int]] = iter,
) -> np.ndarray:
    """Return the length of every sample, as stored or measured now: each rank measures its share, the first stores all.

    Args:
        dataset: the samples.
        collate: lays samples out.
        store: of lengths.
        ranks: that measure together; None: this process alone.
        workers: processes of a rank that measure.
        track: wraps the iteration over the first indices of the parts of a rank's share, to show progress.

    Returns:
        Positions of each sample in a row (int32); 0: it would be dropped.
    """
    ranks = ranks or Alone()
    stored = store.load(dataset, collate)
    if all(ranks.gather(stored is not None)):
        return stored
    starts = range(len(dataset) * ranks.rank // ranks.size, len(dataset) * (ranks.rank + 1) // ranks.size, AT_ONCE)
    share = _Parts(dataset, collate, starts)
    measured = start_loader(share, workers=workers, batch_size=None, collate_fn=_same)
    own = [next(measured) for _ in track(starts)]
    lengths = np.concatenate([np.empty(0, np.int32), *(part for parts in ranks.gather(own) for part in parts)])
    if ranks.rank == 0:
        store.save(dataset, collate, lengths)
    return lengths


def data_folder(card: Mapping[str, Any]) -> Path | None:
    """Return the folder of the first file that the card of a data set names as `file`; None: there is none."""
    for name, value in sorted(card.items()):
        if name == "file" and isinstance(value, str) and os.path.isdir(folder := os.path.dirname(value) or "."):
            return Path(folder)
        if isinstance(value, Mapping) and (found := data_folder(value)) is not None:
            return found
    return None


class _Parts(Dataset[np.ndarray]):
    """Lengths of the samples of each part of a share, `AT_ONCE` in a part."""

    def __init__(self, dataset: MapDataset, collate: Collator, starts: range) -> None:
        self.dataset, self.collate, self.starts = dataset, collate, starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, part: int) -> np.ndarray:
        start = self.starts[part]
        stop = min(start + AT_ONCE, self.starts.stop)
        return np.array([self._length(index) for index in range(start, stop)], dtype=np.int32)

    def _length(self, index: int) -> int:
        try:
            sample = self.dataset[index]
        except (OSError, ValueError):
            return 0
        return self.collate.length(sample)


def _write(path: Path, lengths: np.ndarray) -> None:
    with path.open("wb") as file:  # np.save appends a suffix to a name
        np.save(file, lengths, allow_pickle=False)


def _stamps(value: Any) -> list[list[Any]]:
    """Size and time of change of the files that a card names."""
    if isinstance(value, Mapping):
        parts = [_files(value[name]) if name == "file" else value[name] for name in sorted(value)]
        return [found for part in parts for found in _stamps(part)]
    if isinstance(value, list | tuple):
        return [found for item in value for found in _stamps(item)]
    if not isinstance(value, str) or not os.path.isfile(value):
        return []
    return [[value, *stamp(value)]]


def _files(value: Any) -> Any:
    """Local files that a pattern names."""
    if not isinstance(value, str) or is_url(value):
        return value
    try:
        return expand(value)
    except ValueError:  # refused by the reader, with its reason
        return value


def _same(part: np.ndarray) -> np.ndarray:
    return part
