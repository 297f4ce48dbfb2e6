"""Text of a reply while its tokens arrive."""

from collections.abc import Sequence
from itertools import takewhile

from mmrnn.prompts import StopCriteria
from mmrnn.types import Tokenizer


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Return the number of items that two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


class TextStream:
    """Decoder of a reply that arrives token by token: every text is the beginning of the next one.

    Held back is whatever a later token may change: an incomplete character, white space at the end, and the beginning
    of a stop string.

    Args:
        tokenizer: of the reply.
        stop: where the reply ends.

    Attributes:
        text: returned last.
    """

    def __init__(self, tokenizer: Tokenizer, stop: StopCriteria) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._ids: list[int] = []
        self._decoded = self.text = ""

    def push(self, id: int) -> str:
        """Append a token, and return the text so far."""
        self._ids.append(id)
        return self._advance(self._stop.clean_unfinished(self._tokenizer.decode(self._ids)))

    def finish(self) -> str:
        """Return the text of the whole reply, with nothing held back."""
        return self._advance(self._stop.clean(self._tokenizer.decode(self._ids)))

    def _advance(self, text: str) -> str:
        """Append what `text` has beyond the text decoded before."""
        before = self._decoded
        same = len(before) if text.startswith(before) else common_length(text, before)
        # Byte fallback turns every byte of a run into U+FFFD, those of characters shown before too, once one of them
        # begins no character.
        lost = len(before[same:].encode())
        if text[same : same + lost] == "\ufffd" * lost:
            self.text += text[same + lost :]
            self._decoded = text
        return self.text
