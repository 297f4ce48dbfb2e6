"""Fingerprint of data: by it two runs are known to have learnt from, and been asked, the same samples."""

import json
from collections.abc import Mapping
from hashlib import sha256

from mmrnn.io.errors import RecordError
from mmrnn.types import MapDataset

SAMPLES = 64
"""Samples that are read of a data set, evenly spaced."""


def data_fingerprint(datasets: Mapping[str, MapDataset]) -> str:
    """Return a fingerprint of the sizes of data sets, and of ids, texts and keys of images of some of their samples.

    Args:
        datasets: by the name of their split.
    """
    digest = sha256()
    for name, dataset in datasets.items():
        size = len(dataset)
        facts = [_facts(dataset, index) for index in range(0, size, max(1, size // SAMPLES))]
        digest.update(json.dumps([name, size, facts]).encode())
    return digest.hexdigest()[:16]


def _facts(dataset: MapDataset, index: int) -> list[object]:
    try:
        sample = dataset[index]
    except (RecordError, OSError) as fault:
        return [index, type(fault).__name__]
    turns = [[turn.role, turn.text] for turn in sample.turns]
    return [sample.id, sample.kind, turns, [image.key for image in sample.images]]
