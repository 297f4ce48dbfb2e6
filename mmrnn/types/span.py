"""Span of a prompt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A piece of text that is tokenised separately, a mark, or the place of one input.

    Attributes:
        text: empty at a place and at a mark.
        target: the text is trained on.
        image: the place of an input, not text.
        modality: name of the modality that encodes the input; None: the image modality.
        mark: id of a token that no text has; None: the span is no mark.
    """

    text: str = ""
    target: bool = False
    image: bool = False
    modality: str | None = None
    mark: int | None = None
