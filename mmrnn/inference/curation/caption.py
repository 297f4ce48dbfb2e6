"""New captions of images by a trained model, as records in the form of LLaVA."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmrnn.data.curation.items import Item, UnreadableError
from mmrnn.data.curation.outcome import SEEN, Outcome, kept_records, line
from mmrnn.data.curation.output import NO_FILE, RecordWriter
from mmrnn.data.image import ImageError
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.curation.images import FolderImages, RecordImages
from mmrnn.inference.fingerprint import state_facts
from mmrnn.inference.replies import replies
from mmrnn.io.errors import RecordError
from mmrnn.io.journal import open_journal
from mmrnn.types import TAG, ImageSource, Sample, Turn

EMPTY = "the model replied nothing"


def caption_images(
    assistant: Assistant,
    images: FolderImages | RecordImages,
    out: Path,
    question: str,
    *,
    max_new_tokens: int = 64,
    strict: bool = False,
    batch_size: int = 32,
    track: Callable[[range], Iterable[int]] = iter,
) -> Outcome:
    """Ask a model about every distinct image, and write its replies as records in the form of LLaVA.

    An image that several records share is asked about once; frames of videos have no file, and are left out. A call
    that was killed continues when it is repeated.

    Args:
        assistant: that replies, always with the most likely token.
        images: of a folder or a data set.
        out: `.jsonl` file of the records.
        question: in the records, too; without a tag.
        max_new_tokens: of a reply.
        strict: stop at the first record or image that cannot be read.
        batch_size: items whose images are asked about at once.
        track: wraps the iteration over the first indices of the batches, to show progress.

    Raises:
        ValueError: the output exists or was begun with other settings, or the question has a tag.
        UnreadableError: `strict`, and something cannot be read.
        DiskFullError: there is no space for the output.
    """
    if TAG in question:
        raise ValueError(f"the question is put behind the image; leave out {TAG}")
    card = (assistant.model.config or {}).get("prompt")
    facts = {"question": question, "max_new_tokens": max_new_tokens, "prompt": card}
    facts |= state_facts(assistant.model, assistant.tokenizer)
    outcome, writer = Outcome(invalid=images.invalid), images.writer(out)
    with open_journal(out, {**images.settings(), **facts}) as journal:
        seen = {key for one in journal for key in one.get(SEEN, ())}
        for start in track(range(journal.done, len(images), batch_size)):
            items = [images[index] for index in range(start, min(start + batch_size, len(images)))]
            new = [[*_new_images(item, seen)] for item in items]
            samples = [_question(question, image) for own in new for _, image in own if writer.has_file(image)]
            found = iter(replies(assistant, samples, max_new_tokens=max_new_tokens) if samples else ())
            journal.append(
                [_line(item, own, found, writer, question, strict) for item, own in zip(items, new, strict=True)]
            )
        journal.finish(kept_records(journal, outcome))
    return outcome


def _new_images(item: Item, seen: set[str]) -> Iterator[tuple[str, ImageSource]]:
    """Images of an item that were not asked about yet, each with an id; their keys are added to `seen`."""
    for number, image in enumerate(item.images):
        if image.key not in seen:
            seen.add(image.key)
            yield item.id if len(item.images) == 1 else f"{item.id}-{number}", image


def _question(question: str, image: ImageSource) -> Sample:
    return Sample((Turn("user", f"{TAG}\n{question}"), Turn("assistant", "")), (image,))


def _line(
    item: Item,
    images: Sequence[tuple[str, ImageSource]],
    found: Iterator[str | ImageError],
    writer: RecordWriter,
    question: str,
    strict: bool,
) -> dict[str, Any]:
    """Line of an item, with the records of its new images."""
    if item.fault is not None and strict:
        raise UnreadableError(f"record {item.id!r}: {item.fault}") from item.fault
    records, dropped = [], [(item.id, item.fault.reason)] if item.fault else []
    for id, image in images:
        reply = next(found) if writer.has_file(image) else RecordError(NO_FILE)
        if isinstance(reply, ImageError) and strict:
            raise UnreadableError(f"record {item.id!r}: {reply}") from reply
        try:
            if isinstance(reply, Exception):
                raise reply
            if not reply.strip():
                raise RecordError(EMPTY)
            turns = Turn("user", f"{TAG}\n{question}"), Turn("assistant", reply.strip())
            records.append(writer.dialogue(id, turns, [image]))
        except (ImageError, RecordError) as fault:
            dropped.append((id, fault.reason))
    return line(records, dropped, [image.key for _, image in images])
