"""The dialogue form of RWKV and VisualRWKV."""

import re
from collections.abc import Sequence

from mmrnn.prompts.image_position import Place, place_images
from mmrnn.prompts.spans import Span
from mmrnn.types import Prompt
from mmrnn.types.sample import TAG, Turn

BLANK = re.compile(r"\n\s*\n")


class RWKVChat(Prompt):
    """`User: {text}` and `Assistant: {text}`, each turn closed by an empty line, which therefore never occurs inside
    a turn: any run of blank lines becomes one line break (VisualRWKV v6.0).

    Supervised are the replies from the blank after `Assistant:` to the empty line.
    """

    stops = ("\n\n",)

    def __init__(self, *, image: Place = "first") -> None:
        self.image = image

    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """See `Prompt`. Turns may come in any order of roles."""
        asked = iter(place_images([turn.text for turn in turns if turn.role == "user"], images, self.image))
        spans = []
        for index, turn in enumerate(turns):
            if turn.role == "assistant":
                text = _lines(turn.text)
                if not text and index + 1 < len(turns):
                    raise ValueError(f"turn {index + 1} is an empty reply; only the last one may be, to be generated")
                spans.append(Span("Assistant:"))
                if text:
                    spans.append(Span(f" {text}\n\n", target=True))
            else:
                spans += split(f"User: {_lines(next(asked))}\n\n", images)
        return spans


def split(text: str, images: int) -> list[Span]:
    """The text around the tags and the images at the tags; without images a tag is text."""
    if not images:
        return [Span(text)] if text else []
    spans = []
    for index, words in enumerate(text.split(TAG)):
        if index:
            spans.append(Span(image=True))
        if words:
            spans.append(Span(words))
    return spans


def _lines(text: str) -> str:
    return BLANK.sub("\n", text.strip())
