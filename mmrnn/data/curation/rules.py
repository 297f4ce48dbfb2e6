"""Rules by which a sample is kept: sizes of its images, length and writing systems of its text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mmrnn.data.curation.scripts import letter_share
from mmrnn.data.readers.dialogue import TAGS
from mmrnn.types import Sample


@dataclass(frozen=True)
class FilterRules:
    """Limits that a sample has to keep; None: there is none.

    Attributes:
        min_side: least number of pixels of a side of an image.
        max_aspect: largest ratio of the long side to the short side.
        max_pixels: most pixels of an image.
        min_chars: least number of characters of the text.
        max_chars: most characters of the text.
        scripts: least share of the letters of the text that belong to scripts, 0 to 1, by the names of the scripts.

    Raises:
        ValueError: a limit is out of range, or there is no such script.
    """

    min_side: int | None = None
    max_aspect: float | None = None
    max_pixels: int | None = None
    min_chars: int | None = None
    max_chars: int | None = None
    scripts: Mapping[tuple[str, ...], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_aspect is not None and not self.max_aspect >= 1:
            raise ValueError(f"max_aspect ({self.max_aspect}) must be at least 1")
        for names, least in self.scripts.items():
            letter_share("", names)
            if not 0 <= least <= 1:
                raise ValueError(f"the share of {'+'.join(names)} ({least}) must lie between 0 and 1")

    def size_fault(self, sizes: Iterable[tuple[int, int]]) -> str | None:
        """Return the first rule that an image breaks, given width and height of each; None: all keep them."""
        for width, height in sizes:
            short, long = sorted((width, height))
            if self.min_side is not None and short < self.min_side:
                return f"a side of an image has less than {self.min_side} pixels"
            if self.max_aspect is not None and long > self.max_aspect * short:
                return f"one side of an image is more than {self.max_aspect:g} times the other"
            if self.max_pixels is not None and width * height > self.max_pixels:
                return f"an image has more than {self.max_pixels} pixels"
        return None

    def text_fault(self, text: str) -> str | None:
        """Return the first rule that a text breaks; None: it keeps all."""
        if self.min_chars is not None and len(text) < self.min_chars:
            return f"a text has less than {self.min_chars} characters"
        if self.max_chars is not None and len(text) > self.max_chars:
            return f"a text has more than {self.max_chars} characters"
        for names, least in self.scripts.items():
            if letter_share(text, names) < least:
                return f"less than {least:g} of the letters of a text are {'+'.join(names)}"
        return None


def text_of(sample: Sample) -> str:
    """Return the turns of user and assistant that have words, a line each, without the tags of images and the like."""
    texts = []
    for turn in sample.turns:
        text = turn.text if turn.role != "system" else ""
        for tag in TAGS.values():
            text = text.replace(tag, "")
        texts += [text.strip()] if text.strip() else []
    return "\n".join(texts)
