"""Where the images stand among the words of a question."""

from collections.abc import Sequence
from typing import Literal

from mmrnn.types.sample import TAG

Place = Literal["first", "last", "sandwich", "inline", "lines"]

SHORT = "Answer the question using a single word or phrase."
"""The instruction that LLaVA's data appends to short questions. A sandwich does not say it twice."""


def place_images(texts: Sequence[str], images: int, image: Place, gap: str = "\n") -> list[str]:
    """The user's texts with their tags where `image` wants them.

    `first` and `last` put the images of a turn before and after its words, `inline` leaves them where they are, and
    `lines` lets each of them end its line there (VILA).
    `sandwich` puts them between what is asked and the turn itself (VisualRWKV, arXiv 2406.13362): before
    the first image that is everything the user asks in the whole dialogue, so that it is known what to look for;
    before an image of a later turn it is that turn.

    Without images a tag is plain text. One image may be tagged several times in one turn, which counts as one
    tag, or not at all, and then it is not shown.

    Args:
        gap: what stands between the images and the words beside them.

    Raises:
        ValueError: the tags do not agree with the number of images.
    """
    counts = [text.count(TAG) for text in texts]
    shown = [count > 0 for count in counts]
    if images == 0 or (images == 1 and not any(shown)):
        return list(texts)
    if images == 1 and sum(shown) > 1:
        raise ValueError(f"one image is tagged in {sum(shown)} turns; put {TAG} into the turn that shows it")
    if images > 1 and sum(counts) != images:
        raise ValueError(f"{sum(counts)} tags {TAG} for {images} images; each image needs one tag")
    if images == 1:
        texts = [_once(text) for text in texts]

    if image == "inline":
        return list(texts)
    if image == "lines":
        return [_lines(text) for text in texts]
    bare = [text.replace(TAG, "").strip() for text in texts]
    asked = [text.replace(SHORT, "").strip() if with_tag else text for text, with_tag in zip(bare, shown, strict=True)]
    placed = list(texts)
    for index in (index for index, with_tag in enumerate(shown) if with_tag):
        tags = gap.join([TAG] * texts[index].count(TAG))
        before = "\n".join(asked) if index == shown.index(True) else asked[index]
        order = {
            "first": (tags, bare[index]),
            "last": (bare[index], tags),
            "sandwich": (before.strip(), tags, bare[index]),
        }[image]
        placed[index] = gap.join(part for part in order if part)
    return placed


def _lines(text: str) -> str:
    """A line break behind every tag, a blank or a line break before it."""
    *chunks, last = (chunk.strip() for chunk in text.split(TAG))
    return "".join(f"{chunk} {TAG}\n" if chunk else f"{TAG}\n" for chunk in chunks).strip() + (
        f"\n{last}" if chunks and last else last
    )


def _once(text: str) -> str:
    """Only the first tag of a text."""
    head, tag, tail = text.partition(TAG)
    return head + tag + tail.replace(TAG, "")
