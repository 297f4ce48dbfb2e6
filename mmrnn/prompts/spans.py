"""Pieces: a dialogue as it is read by a model. A prompt makes them of turns, `tokenize` makes ids of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from mmrnn.types import IGNORE, SLOT, ImageSpan, Layout, Tokenizer
from mmrnn.types.sample import TAG, Turn


@dataclass(frozen=True)
class Span:
    """A stretch of text, tokenised by itself, or the place of an image. A target is what the model learns to say.

    `modality` reads what stands at a place, where it is no image.
    """

    text: str = ""
    target: bool = False
    image: bool = False
    modality: str | None = None


class TokenizedSample(NamedTuple):
    """Ids, labels (the ids where supervised, else IGNORE) and the blocks of the images among them."""

    ids: list[int]
    labels: list[int]
    image_spans: list[ImageSpan]


@runtime_checkable
class Prompt(Protocol):
    """How a dialogue is written for a model. A reply is over at any of `stops`."""

    stops: tuple[str, ...]

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """The pieces of a dialogue about so many images, the reply to an empty last turn left out.

        Raises:
            ValueError: tags and images do not agree, or the turns are not what this prompt can write.
        """
        ...


def tokenize(
    spans: Sequence[Span], tokenizer: Tokenizer, layouts: Sequence[Layout] = (), row: int = 0, modality: str = "image"
) -> TokenizedSample:
    """The ids of all pieces, slots where the images come.

    A tokenizer may have `starts`: ids that every text begins with (the BOS of Llama). An image whose tokens stand
    beside the text is marked in it by the words `<image>`.

    Args:
        layouts: how the visual tokens of each image lie, in the order of the image pieces.
        row: the row of the batch that the blocks will name.

    Raises:
        ValueError: fewer layouts than image pieces.
    """
    ids = list(getattr(tokenizer, "starts", ()))
    labels = [IGNORE] * len(ids)
    blocks: list[ImageSpan] = []
    for span in spans:
        if span.image:
            if len(blocks) == len(layouts):
                wanted = sum(span.image for span in spans)
                raise ValueError(f"the text has places for {wanted} images, but there are layouts for {len(layouts)}")
            layout = layouts[len(blocks)]
            blocks.append(ImageSpan(row, len(ids), layout, span.modality or modality))
            tokens = tokenizer.encode(TAG) if layout.cross_attention else [SLOT] * layout.tokens
        else:
            tokens = tokenizer.encode(span.text)
        ids += tokens
        labels += tokens if span.target else [IGNORE] * len(tokens)
    return TokenizedSample(ids, labels, blocks)


def insert_modality_slots(spans: Sequence[Span], modalities: Sequence[str]) -> list[Span]:
    """The pieces with the places of other modalities than the image: `<state>` in a text is one for the modality `state`."""
    if not modalities:
        return list(spans)
    tags = re.compile(f"<({'|'.join(map(re.escape, modalities))})>")
    found = []
    for span in spans:
        if span.image or span.target:
            found.append(span)
            continue
        for index, part in enumerate(tags.split(span.text)):  # text, modality, text, modality, ..., text
            if index % 2:
                found.append(Span(image=True, modality=part))
            elif part:
                found.append(Span(part))
    return found


def truncate(row: TokenizedSample, length: int) -> TokenizedSample:
    """The first `length` positions of a row, with the images that lie in them.

    Raises:
        ValueError: an image would be cut in two.
    """
    blocks = [block for block in row.image_spans if block.start < length and block.stop <= length]
    for block in row.image_spans:
        if block.start < length < block.stop:
            raise ValueError(f"the length ({length}) cuts the image at {block.start}:{block.stop} in two")
    return TokenizedSample(row.ids[:length], row.labels[:length], blocks)
