"""Filtering of records: streaming, resumable, with what is dropped counted by reason."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from mmrnn.data.curation.items import Item, UnreadableError, read_item
from mmrnn.data.curation.outcome import SEEN, Outcome, invalid_records, kept_records, line
from mmrnn.data.curation.output import RecordWriter
from mmrnn.data.curation.rules import FilterRules, text_of
from mmrnn.data.image import ImageError, image_size
from mmrnn.data.readers.record_dataset import RecordDataset
from mmrnn.io.errors import RecordError
from mmrnn.io.journal import open_journal
from mmrnn.types import Sample

ROUND = 256
"""Records between two writes to the journal."""

DUPLICATE = "a duplicate of an earlier record"

Duplicates = Literal["images", "records"]


def filter_records(
    dataset: RecordDataset,
    out: Path,
    rules: FilterRules,
    *,
    duplicates: Duplicates | None = None,
    headers: bool = False,
    strict: bool = False,
    workers: int = 4,
    settings: dict[str, Any] | None = None,
    track: Callable[[range], Iterable[int]] = iter,
) -> Outcome:
    """Write the records that keep all rules, in their order, to a `.jsonl` file (see `RecordWriter`).

    A call that was killed continues when it is repeated. Memory: a round of records, and about 100 bytes for each
    digest where duplicates are looked for.

    Args:
        dataset: the records.
        out: file of the output.
        rules: that a record has to keep.
        duplicates: drop a record that has the same images as one that is kept, in their order (`images`), or the same
            images and turns (`records`). Images are equal where their pixels are. None: nothing is compared.
        headers: read the headers of images alone; broken pixels are not noticed.
        strict: stop at the first record or image that cannot be read.
        workers: threads that open images.
        settings: facts of the data, which a repeated call is compared by.
        track: wraps the iteration over the first indices of the rounds, to show progress.

    Raises:
        ValueError: the output exists, was begun with other settings, or duplicates are looked for by headers.
        UnreadableError: `strict`, and something cannot be read.
        DiskFullError: there is no space for the output.
    """
    if headers and duplicates:
        raise ValueError("duplicates are found by the pixels of images; leave out headers")
    invalid = invalid_records(dataset, strict=strict)
    facts = {**asdict(rules), "scripts": [[*names, least] for names, least in rules.scripts.items()]}
    facts |= {"duplicates": duplicates, "headers": headers, **(settings or {})}
    writer, outcome = RecordWriter.of(dataset, out), Outcome(invalid=invalid)
    with open_journal(out, facts) as journal, ThreadPoolExecutor(workers) as executor:
        seen = {digest for one in journal for digest in one.get(SEEN, ())} if duplicates else set()
        for start in track(range(journal.done, len(dataset), ROUND)):
            items = [
                read_item(dataset, index).with_images_read() for index in range(start, min(start + ROUND, len(dataset)))
            ]
            judged = executor.map(lambda item: _judge(item, rules, duplicates, headers), items)
            lines = []
            for item, (fault, digest) in zip(items, judged, strict=True):
                if isinstance(fault, Exception) and strict:
                    raise UnreadableError(f"record {item.id!r}: {fault}") from fault
                reason = fault.reason if isinstance(fault, Exception) else fault
                if reason is None and digest in seen:
                    reason = DUPLICATE
                lines.append(_line(writer, item, reason, digest))
                seen.update(lines[-1].get(SEEN, ()))
            journal.append(lines)
        journal.finish(kept_records(journal, outcome))
    return outcome


def _judge(
    item: Item, rules: FilterRules, duplicates: Duplicates | None, headers: bool
) -> tuple[RecordError | ImageError | str | None, str]:
    """Fault of a record or the rule that it breaks, and its digest where duplicates are looked for."""
    if item.sample is None:
        return item.fault, ""
    if reason := rules.text_fault(text_of(item.sample)):
        return reason, ""
    digests = []
    try:
        # Of an image that is dropped for its size, the header is read alone.
        if reason := rules.size_fault(map(image_size, item.sample.images)):
            return reason, ""
        for image in () if headers else item.sample.images:
            opened = image.open()
            if duplicates:
                digests.append(sha256(repr(opened.size).encode() + opened.tobytes()).digest())
    except ImageError as fault:
        return fault, ""
    return None, _digest(item.sample, digests, duplicates)


def _digest(sample: Sample, images: Sequence[bytes], duplicates: Duplicates | None) -> str:
    if duplicates is None or (duplicates == "images" and not images):
        return ""
    turns = [(turn.role, turn.text) for turn in sample.turns] if duplicates == "records" else ""
    return sha256(repr((images, turns)).encode()).hexdigest()[:32]


def _line(writer: RecordWriter, item: Item, reason: str | None, digest: str) -> dict[str, Any]:
    if reason is None:
        try:
            return line([writer.content(item.record, item.sample)], seen=[digest] if digest else [])
        except (RecordError, ImageError) as fault:
            reason = fault.reason
    return line(dropped=[(item.id, reason)])
