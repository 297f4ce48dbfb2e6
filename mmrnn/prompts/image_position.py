"""Position of the images relative to the words of a question."""

from collections.abc import Sequence
from typing import Literal

from mmrnn.types import TAG

ImagePosition = Literal["first", "last", "sandwich", "inline", "lines"]

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""Instruction that LLaVA's data appends to short questions; `sandwich` does not repeat it."""


def place_images(
    texts: Sequence[str], images: int, position: ImagePosition, separator: str = "\n", *, appended: bool = False
) -> list[str]:
    """Move the image tags of the user's turns.

    `first` and `last` move the tags of a turn before and behind its words, `inline` leaves them in place, `lines` adds
    a line break behind each of them (VILA). `sandwich` moves them between a question and the turn itself (VisualRWKV,
    arXiv 2406.13362): before the first image the question is the words of all the user's turns, before an image of a
    later turn the words of that turn.

    Without images a tag is plain text. One image may be tagged several times in one turn, which counts as one tag, or
    not at all, and then it is not shown.

    Args:
        separator: between the tags, and between them and the words.
        appended: `sandwich` writes the words of the turn alone before its images, also before the first one.

    Raises:
        ValueError: tags and images do not agree.
    """
    counts = [text.count(TAG) for text in texts]
    tagged = [count > 0 for count in counts]
    if images == 0 or (images == 1 and not any(tagged)):
        return list(texts)
    if images == 1 and sum(tagged) > 1:
        raise ValueError(f"one image is tagged in {sum(tagged)} turns; put {TAG} into the turn that shows it")
    if images > 1 and sum(counts) != images:
        raise ValueError(f"{sum(counts)} tags {TAG} for {images} images; each image needs one tag")
    if images == 1:
        texts = [_keep_first_tag(text) for text in texts]

    if position == "inline":
        return list(texts)
    if position == "lines":
        return [_break_lines(text) for text in texts]
    words = [text.replace(TAG, "").strip() for text in texts]
    questions = [
        text.replace(SHORT_ANSWER, "").strip() if with_tag else text
        for text, with_tag in zip(words, tagged, strict=True)
    ]
    placed = list(texts)
    for index in (index for index, with_tag in enumerate(tagged) if with_tag):
        tags = separator.join([TAG] * texts[index].count(TAG))
        joined = not appended and index == tagged.index(True)
        question = "\n".join(questions) if joined else questions[index]
        order = {
            "first": (tags, words[index]),
            "last": (words[index], tags),
            "sandwich": (question.strip(), tags, words[index]),
        }[position]
        placed[index] = separator.join(part for part in order if part)
    return placed


def _break_lines(text: str) -> str:
    """Put a line break behind every tag, and a space or a line break before it."""
    *chunks, last = (chunk.strip() for chunk in text.split(TAG))
    return "".join(f"{chunk} {TAG}\n" if chunk else f"{TAG}\n" for chunk in chunks).strip() + (
        f"\n{last}" if chunks and last else last
    )


def _keep_first_tag(text: str) -> str:
    head, tag, tail = text.partition(TAG)
    return head + tag + tail.replace(TAG, "")
