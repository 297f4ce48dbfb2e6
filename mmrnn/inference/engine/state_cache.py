"""Cache of the states behind the beginnings of dialogues."""

from mmrnn.inference.byte_cache import ByteCache
from mmrnn.inference.dialogue import DialogueRow
from mmrnn.types import State


class StateCache:
    """States by the content of what was read: its tokens and images.

    Equal beginnings share a state, whoever has sent them; states are never modified.

    Args:
        max_bytes: of all states; those that were not used for the longest time leave first. 0: none are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._states: ByteCache[tuple[int, State]] = ByteCache(max_bytes)

    def __len__(self) -> int:
        return len(self._states)

    @property
    def nbytes(self) -> int:
        """Size of all states in bytes."""
        return self._states.nbytes

    def find(self, row: DialogueRow) -> tuple[int, State | None]:
        """Return the longest beginning of a row, shorter than the row, whose state is kept; 0 and None: there is none.

        Returns:
            The number of its positions, and the state behind them.
        """
        lengths = sorted({length for length, _ in self._states.values() if length < len(row.ids)})
        for key in reversed([*row.digests(lengths)]):
            if (found := self._states.get(key)) is not None:
                return found
        return 0, None

    def put(self, row: DialogueRow, length: int, state: State) -> None:
        """Keep the state behind the first `length` positions of a row."""
        self._states.put(row.digest(length), (length, state), state.nbytes)

    def clear(self) -> None:
        """Forget all states."""
        self._states.clear()
