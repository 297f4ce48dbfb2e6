"""Selection of records by the features of their images: those nearest to the centres of clusters."""

import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from mmrnn.data.curation.items import Item, UnreadableError, read_item
from mmrnn.data.curation.outcome import DROPPED, Outcome, invalid_records, kept_records, line
from mmrnn.data.curation.output import RecordWriter
from mmrnn.data.image import ImageError
from mmrnn.data.readers.record_dataset import RecordDataset
from mmrnn.inference.curation.clusters import Nearest, nearest_to_centres
from mmrnn.inference.feature_cache import encode_images
from mmrnn.inference.fingerprint import tensors_fingerprint
from mmrnn.io.errors import RecordError
from mmrnn.io.journal import Journal, open_journal
from mmrnn.types import Encoder

ROUND = 1024
"""Records between two writes to the journal."""

FEATURES = "features.f16"

NO_IMAGE = "a record has no image"
NOT_NEAR = "others of its cluster are nearer to the centre"


@dataclass(frozen=True)
class Selection:
    """Sizes of a selection.

    Attributes:
        clusters: number of clusters (EVE: 50,000).
        nearest: records of each cluster that are kept, the nearest to its centre (EVE: 300).
        seed: of k-means.
    """

    clusters: int
    nearest: int
    seed: int = 0


def select_records(
    dataset: RecordDataset,
    out: Path,
    encoder: Encoder,
    selection: Selection,
    *,
    strict: bool = False,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    settings: dict[str, Any] | None = None,
    track: Callable[[range], Iterable[int]] = iter,
) -> tuple[Outcome, int]:
    """Write the records whose images are nearest to the centres of clusters (EVE, arXiv 2406.11832), in their order.

    The feature of a record is the mean of the encoder tokens of its images, scaled to unit length. A call that was
    killed continues when it is repeated: features are kept on disk, 2 bytes a number, until the output is whole.

    Args:
        dataset: the records.
        out: `.jsonl` file of the output (see `RecordWriter`).
        encoder: with fixed size of images, in evaluation mode, on `device`.
        selection: clusters and records of each.
        strict: stop at the first record or image that cannot be read.
        batch_size: images that are encoded at once.
        device: of the encoder.
        settings: facts of data and encoder, which a repeated call is compared by.
        track: wraps the iteration over the first indices of the rounds, to show progress.

    Returns:
        What is kept and dropped, and the number of clusters that have a record.

    Raises:
        ValueError: the output exists, was begun with other settings, or there are fewer images than clusters.
        UnreadableError: `strict`, and something cannot be read.
        ImportError: scikit-learn is not installed.
        DiskFullError: there is no space for features or output.
    """
    outcome = Outcome(invalid=invalid_records(dataset, strict=strict))
    weights = tensors_fingerprint(encoder.state_dict())
    writer = RecordWriter.of(dataset, out)
    with open_journal(out, {"weights of the encoder": weights, **(settings or {})}) as journal:
        path = journal.folder / FEATURES
        with path.open("ab") as file:
            # Features are written before their lines: those without a line are made again.
            file.truncate(2 * encoder.width * journal.done)
            for start in track(range(journal.done, len(dataset), ROUND)):
                items = [read_item(dataset, index) for index in range(start, min(start + ROUND, len(dataset)))]
                features, lines = _encode(encoder, items, strict=strict, batch_size=batch_size, device=device)
                file.write(features.half().numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
                journal.append(lines)
        found = _nearest(journal, path, encoder.width, selection)
        journal.finish(kept_records(_lines(dataset, journal, writer, {*found.rows.tolist()}), outcome))
    return outcome, found.clusters


def _nearest(journal: Journal, path: Path, width: int, selection: Selection) -> Nearest:
    """Rows that are selected among those whose lines drop nothing."""
    rows = np.array([number for number, one in enumerate(journal) if DROPPED not in one], dtype=np.int64)
    features = np.memmap(path, np.float16, "r", shape=(journal.done, width)) if len(rows) else np.empty((0, width))
    return nearest_to_centres(
        features, rows, clusters=selection.clusters, nearest=selection.nearest, seed=selection.seed
    )


def _encode(
    encoder: Encoder, items: Sequence[Item], *, strict: bool, **options: Any
) -> tuple[Float[Tensor, "m e"], list[dict[str, Any]]]:
    """Features of some records, zero where there are none, and their lines."""
    images = [image for item in items for image in item.images]
    pooled = torch.zeros(len(images), 1, encoder.width)
    faults = encode_images(encoder, images, out=pooled, pool=_mean, **options).faults
    features, lines, place = torch.zeros(len(items), encoder.width), [], 0
    for number, item in enumerate(items):
        broken = (ImageError(*faults[image.key]) for image in item.images if image.key in faults)
        fault = item.fault or next(broken, None)
        if fault is not None and strict:
            raise UnreadableError(f"record {item.id!r}: {fault}") from fault
        reason = fault.reason if fault is not None else None if item.images else NO_IMAGE
        if reason is None:
            features[number] = normalize(pooled[place : place + len(item.images), 0].mean(0), dim=0)
        lines.append(line(dropped=[(item.id, reason)] if reason else []))
        place += len(item.images)
    return features, lines


def _mean(tokens: Float[Tensor, "m n e"]) -> Float[Tensor, "m 1 e"]:
    return tokens.mean(1, keepdim=True)


def _lines(dataset: RecordDataset, journal: Journal, writer: RecordWriter, chosen: Container[int]) -> Iterator[Any]:
    """Lines with the content of the records that are chosen."""
    for index, one in enumerate(journal):
        if DROPPED in one:
            yield one
            continue
        item = read_item(dataset, index)
        if index not in chosen and not item.fault:
            yield line(dropped=[(item.id, NOT_NEAR)])
            continue
        try:
            if item.fault:
                raise item.fault
            yield line([writer.content(item.record, item.sample)])
        except (RecordError, ImageError) as fault:
            yield line(dropped=[(item.id, fault.reason)])
