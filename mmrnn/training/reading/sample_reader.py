"""Reading and collating of the samples of a micro-batch, in a worker process or in the rank's own."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from mmrnn.data.collate import Collator
from mmrnn.data.dropped import DroppedSampleError
from mmrnn.data.readers.dialogue import RecordError
from mmrnn.types import Batch, MapDataset, Sample

Key = tuple[int, int]
"""Position in the order of the run, and index of the sample in the data set."""


class SkippedSample(NamedTuple):
    """A sample that was read and is not trained on.

    Attributes:
        position: in the order of the run.
        id: of the sample; `#12` where it could not be read.
        reason: the same for every sample with this fault.
        detail: the reason with what it says of this sample.
        rank: that read it.
        worker: number of the process that read it; None: it was read by the rank itself.
    """

    position: int
    id: str
    reason: str
    detail: str
    rank: int = 0
    worker: int | None = None


class Collated(NamedTuple):
    """Samples of one micro-batch, collated.

    Attributes:
        batch: None where all samples are dropped.
        ids: of the samples that are left.
        positions: of the samples that are left, in the order of the run.
        dropped: the others.
        worker: number of the process that collated them; None: the rank itself.
    """

    batch: Batch | None
    ids: list[str]
    positions: list[int]
    dropped: list[SkippedSample]
    worker: int | None = None


class Keys(Dataset[Key]):
    """Data set whose samples are their own keys: a sample is read where its micro-batch is collated."""

    def __getitem__(self, key: Key) -> Key:
        return key


class SampleReader:
    """Reads and collates the samples of a planned micro-batch, each under random generators of its own.

    Args:
        dataset: the samples.
        collate: samples to a batch.
        seed: of the generators, with the position of a sample.
        rank: of this process, or of the one that it works for.
        split: lengths of the samples -> indices of those of each micro-batch; None: they are one.
    """

    def __init__(
        self,
        dataset: MapDataset,
        collate: Collator,
        seed: int,
        rank: int,
        split: Callable[[Sequence[int]], list[list[int]]] | None = None,
    ) -> None:
        self.dataset, self.collate, self.seed, self.rank, self.split = dataset, collate, seed, rank, split

    def __call__(self, keys: Sequence[Key]) -> list[Collated]:
        """Return the micro-batches of some samples."""
        info = get_worker_info()
        worker = None if info is None else info.id
        prepared, names, dropped = [], [], []
        with _kept_generators():
            for position, index in keys:
                _seed_generators(self.seed, position)
                name = f"#{index}"
                try:
                    sample = self._read(index)
                    name = sample.id
                    prepared.append(self.collate.prepare(sample))
                except DroppedSampleError as error:
                    dropped.append(SkippedSample(position, name, error.reason, str(error), self.rank, worker))
                else:
                    names.append((position, name))
        lengths = [len(one.row.ids) for one in prepared]
        found = []
        for indices in [range(len(prepared))] if self.split is None else self.split(lengths):
            batch = self.collate.assemble([prepared[index] for index in indices])
            positions, ids = [names[index][0] for index in indices], [names[index][1] for index in indices]
            found.append(Collated(batch, ids, positions, dropped if not found else [], worker))
        return found

    def _read(self, index: int) -> Sample:
        """Sample of the data set; one that cannot be read is dropped."""
        try:
            return self.dataset[index]
        except RecordError as error:
            raise DroppedSampleError(error.reason, str(error)) from error
        except (OSError, ValueError) as error:
            raise DroppedSampleError("a sample cannot be read", f"{type(error).__name__}: {error}") from error


@contextmanager
def _kept_generators() -> Iterator[None]:
    """Restore the random generators afterwards: those of the rank's own process belong to the training."""
    python, numpy, own = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(own)


def _seed_generators(seed: int, position: int) -> None:
    mixed = int.from_bytes(sha256(f"sample {seed} {position}".encode()).digest()[:4], "big")
    random.seed(mixed)
    np.random.seed(mixed)
    # Not `torch.manual_seed`, which also seeds every GPU.
    torch.default_generator.manual_seed(mixed)
