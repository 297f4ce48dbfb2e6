"""The dialogue form of RWKV and VisualRWKV."""

import re
from collections.abc import Sequence

from mmrnn.data.sample import TAG, Turn
from mmrnn.prompts.piece import Piece
from mmrnn.prompts.place import Place, place

BLANK = re.compile(r"\n\s*\n")


class Dialogue:
    """`User: {text}` and `Assistant: {text}`, each turn closed by an empty line, which therefore never occurs inside
    a turn: any run of blank lines becomes one line break (VisualRWKV v6.0).

    Supervised are the replies from the blank after `Assistant:` to the empty line.
    """

    stops = ("\n\n",)

    def __init__(self, *, image: Place = "first") -> None:
        self.image = image

    def pieces(self, turns: Sequence[Turn], pictures: int) -> list[Piece]:
        """See `Prompt`. Turns may come in any order of roles."""
        asked = iter(place([turn.text for turn in turns if turn.role == "user"], pictures, self.image))
        pieces = []
        for index, turn in enumerate(turns):
            if turn.role == "assistant":
                text = _lines(turn.text)
                if not text and index + 1 < len(turns):
                    raise ValueError(f"turn {index + 1} is an empty reply; only the last one may be, to be generated")
                pieces.append(Piece("Assistant:"))
                if text:
                    pieces.append(Piece(f" {text}\n\n", target=True))
            else:
                pieces += split(f"User: {_lines(next(asked))}\n\n", pictures)
        return pieces


def split(text: str, pictures: int) -> list[Piece]:
    """The text around the tags and the pictures at the tags; without pictures a tag is text."""
    if not pictures:
        return [Piece(text)] if text else []
    pieces = []
    for index, words in enumerate(text.split(TAG)):
        if index:
            pieces.append(Piece(picture=True))
        if words:
            pieces.append(Piece(words))
    return pieces


def _lines(text: str) -> str:
    return BLANK.sub("\n", text.strip())
