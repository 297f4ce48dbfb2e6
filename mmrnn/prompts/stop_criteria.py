"""End of a reply."""

from collections.abc import Sequence

from mmrnn.types import Tokenizer


class StopCriteria:
    r"""Detects the end of a reply: an end id of the tokenizer, or a stop string in the decoded text.

    End ids alone are not enough, because a vocabulary merges: RWKV World has the token `。\n`, so that after a Chinese
    full stop the empty line that ends a turn is two tokens, and its own id, 261, never comes.

    Args:
        stops: stop strings; empty ones are ignored.
        ends: end ids; None: those of the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), ends: Sequence[int] | None = None) -> None:
        self._tokenizer = tokenizer
        self._ends = frozenset(tokenizer.ends if ends is None else ends)
        self._stops = tuple(stop for stop in stops if stop)
        # Every token has at least one byte, so a stop string that was just completed began at most so many ids ago.
        self._window = max((len(stop.encode()) for stop in self._stops), default=0)

    def finished(self, ids: Sequence[int]) -> bool:
        """Check whether the last id ends the reply. To be called after each id; decodes only the last few."""
        if not len(ids):
            return False
        if ids[-1] in self._ends:
            return True
        text = self._tokenizer.decode(list(ids[-self._window :])) if self._window else ""
        return any(stop in text for stop in self._stops)

    def clean(self, text: str) -> str:
        """Remove a stop string, what follows it, and white space at both ends."""
        return self.cut(text).strip()

    def cut(self, text: str) -> str:
        """Remove a stop string and what follows it."""
        for stop in self._stops:
            text = text.partition(stop)[0]
        return text

    def clean_unfinished(self, text: str) -> str:
        r"""Clean the text of a reply that more tokens will follow, without the end that they may change.

        That is an incomplete character (`\ufffd`), white space, and the beginning of a stop string.
        """
        if any(stop in text for stop in self._stops):
            return self.clean(text)
        text = text.rstrip("\ufffd")
        begun = (size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return text[: len(text) - max(begun, default=0)].strip()
