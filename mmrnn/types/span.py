"""Span of a prompt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A piece of text that is tokenised separately, or the place of one input.

    Attributes:
        text: empty at a place.
        target: the text is trained on.
        image: the place of an input, not text.
        modality: name of the modality that encodes the input; None: the image modality.
    """

    text: str = ""
    target: bool = False
    image: bool = False
    modality: str | None = None
