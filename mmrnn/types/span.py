"""Span of a prompt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of text that is tokenised by itself, or the place of one input.

    Attributes:
        text: the words; empty at a place.
        target: the model learns to say it.
        image: an input stands here instead of words.
        modality: which modality reads the input, where it is no image.
    """

    text: str = ""
    target: bool = False
    image: bool = False
    modality: str | None = None
