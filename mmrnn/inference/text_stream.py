"""Text of a reply while its tokens arrive."""

from mmrnn.prompts import StopCriteria
from mmrnn.types import Tokenizer


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
        self.text = ""

    def push(self, id: int) -> str:
        """Append a token, and return the text so far."""
        self._ids.append(id)
        return self._advance(self._stop.clean_unfinished(self._tokenizer.decode(self._ids)))

    def finish(self) -> str:
        """Return the text of the whole reply, with nothing held back."""
        return self._advance(self._stop.clean(self._tokenizer.decode(self._ids)))

    def _advance(self, text: str) -> str:
        # Some decoders turn whole characters back into U+FFFD while the bytes of the next one are incomplete.
        if text.startswith(self.text):
            self.text = text
        return self.text
