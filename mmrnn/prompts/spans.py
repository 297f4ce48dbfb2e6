"""Spans of a dialogue to token ids, labels and image spans."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mmrnn.types import IGNORE, SLOT, TAG, ImageSpan, Layout, Span, Tokenizer


class TokenizedSample(NamedTuple):
    """Token ids, labels (the ids where supervised, else IGNORE), and the spans of the images among them."""

    ids: list[int]
    labels: list[int]
    image_spans: list[ImageSpan]


def split_at_tags(text: str, images: int) -> list[Span]:
    """Split a text at its image tags into spans of text and of images; with 0 images a tag is plain text."""
    if not images:
        return [Span(text)] if text else []
    spans = []
    for index, words in enumerate(text.split(TAG)):
        if index:
            spans.append(Span(image=True))
        if words:
            spans.append(Span(words))
    return spans


def tokenize(
    spans: Sequence[Span], tokenizer: Tokenizer, layouts: Sequence[Layout] = (), row: int = 0, modality: str = "image"
) -> TokenizedSample:
    """Tokenize each span, behind the `starts` of the tokenizer; images become slots.

    A text knows the one in front of it, unless an image stands between them (see `Tokenizer.encode_after`).

    An image whose tokens are for cross-attention fills no slots; the ids of `<image>` mark its position.

    Args:
        layouts: layout of the visual tokens of each image, in the order of the image spans.
        row: index in the batch that the image spans will carry.
        modality: of the image spans that name none.

    Raises:
        ValueError: there are fewer layouts than image spans.
    """
    ids = list(tokenizer.starts)
    labels = [IGNORE] * len(ids)
    image_spans: list[ImageSpan] = []
    before = ""
    for span in spans:
        if span.image:
            before = ""
            if len(image_spans) == len(layouts):
                needed = sum(span.image for span in spans)
                raise ValueError(f"the text has places for {needed} images, but there are layouts for {len(layouts)}")
            layout = layouts[len(image_spans)]
            image_spans.append(ImageSpan(row, len(ids), layout, span.modality or modality))
            tokens = tokenizer.encode(TAG) if layout.cross_attention else [SLOT] * layout.tokens
        elif span.mark is not None:
            tokens, before = [span.mark], ""
        else:
            tokens = tokenizer.encode_after(before, span.text) if before else tokenizer.encode(span.text)
            before = span.text
        ids += tokens
        labels += tokens if span.target else [IGNORE] * len(tokens)
    return TokenizedSample(ids, labels, image_spans)


def insert_modality_slots(spans: Sequence[Span], modalities: Sequence[str]) -> list[Span]:
    """Split the text spans at the tags of other modalities: `<state>` becomes a span of the modality `state`.

    Targets stay as they are.
    """
    if not modalities:
        return list(spans)
    tags = re.compile(f"<({'|'.join(map(re.escape, modalities))})>")
    found = []
    for span in spans:
        if span.image or span.target or span.mark is not None:
            found.append(span)
            continue
        for index, part in enumerate(tags.split(span.text)):  # text, modality, text, modality, ..., text
            if index % 2:
                found.append(Span(image=True, modality=part))
            elif part:
                found.append(Span(part))
    return found


def truncate(sample: TokenizedSample, length: int) -> TokenizedSample:
    """Keep the first `length` positions of a sample and the images in them.

    Raises:
        ValueError: the cut would be inside an image.
    """
    for span in sample.image_spans:
        if span.start < length < span.stop:
            raise ValueError(f"the length ({length}) cuts the image at {span.start}:{span.stop} in two")
    kept = [span for span in sample.image_spans if span.start < length and span.stop <= length]
    return TokenizedSample(sample.ids[:length], sample.labels[:length], kept)
