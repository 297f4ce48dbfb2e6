"""When a reply is over."""

from collections.abc import Sequence

from mmrnn.types import Tokenizer


class Stop:
    """Tells whether a reply is over: by an end id, or by a stop string in what the last ids say.

    The ids alone are not enough. A vocabulary merges: World has the token `。\\n`, so after a Chinese full stop the
    empty line that ends a turn is two tokens and its own id, 261, never comes.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._ends = frozenset(tokenizer.ends)
        self._stops = tuple(stop for stop in stops if stop)
        # A token says at least one byte, so a stop string that was just finished began at most so many ids ago.
        self._reach = max((len(stop.encode()) for stop in self._stops), default=0)

    def finished(self, ids: Sequence[int]) -> bool:
        """Whether the last of the ids ends the reply. To be asked after each id; it looks at the last few only."""
        if not len(ids):
            return False
        if ids[-1] in self._ends:
            return True
        said = self._tokenizer.decode(list(ids[-self._reach :])) if self._reach else ""
        return any(stop in said for stop in self._stops)

    def clean(self, text: str) -> str:
        """The reply without what closes it."""
        for stop in self._stops:
            text = text.partition(stop)[0]
        return text.strip()
