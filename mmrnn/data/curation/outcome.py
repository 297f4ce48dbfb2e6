"""Lines of the journal of a pass over records, and what the pass has kept and dropped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrnn.data.curation.items import UnreadableError
from mmrnn.data.left_out import LeftOut
from mmrnn.data.readers.record_dataset import RecordDataset
from mmrnn.types import MapDataset

RECORDS, DROPPED, SEEN = "records", "dropped", "seen"
"""Keys of a line: records of the output, pairs of an id and a reason, and digests of what was there."""


@dataclass
class Outcome:
    """Counts of a pass: what is kept, and what is not, by reason.

    Attributes:
        total: records or images that were read.
        kept: records in the output.
        dropped: the others, by reason.
        invalid: records of the input that its reader does not accept, by reason.
    """

    total: int = 0
    kept: int = 0
    dropped: LeftOut = field(default_factory=LeftOut)
    invalid: LeftOut = field(default_factory=LeftOut)


def line(
    records: Sequence[Mapping[str, Any]] = (), dropped: Sequence[tuple[str, str]] = (), seen: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the line of an item."""
    return {key: [*value] for key, value in ((RECORDS, records), (DROPPED, dropped), (SEEN, seen)) if value}


def kept_records(lines: Iterable[Mapping[str, Any]], outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield the records of the lines, and count in `outcome` what they hold."""
    for one in lines:
        records, dropped = one.get(RECORDS, ()), one.get(DROPPED, ())
        outcome.kept += len(records)
        outcome.total += len(records) + len(dropped)
        for id, reason in dropped:
            outcome.dropped.add(reason, id)
        yield from records


def require_records(dataset: MapDataset) -> RecordDataset:
    """Return a data set that reads records from files.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(dataset, RecordDataset):
        raise ValueError(
            f"data: {type(dataset).__name__} reads no records of one format; choose data=llava, webdataset, parquet, "
            "captions, interleaved or text, with data.file"
        )
    return dataset


def invalid_records(dataset: RecordDataset, *, strict: bool = False) -> LeftOut:
    """Count the records that the reader does not accept.

    Args:
        dataset: the records.
        strict: raise where there are any.

    Raises:
        UnreadableError: `strict`, and there is one.
    """
    refused = dict(dataset.refused())
    if strict and refused:
        id, message = next(iter(refused.items()))
        raise UnreadableError(f"record {id!r}: {message}")
    return LeftOut.of((id, reason) for id, reason in dataset.left_out() if id in refused)
