"""Cache of the states behind the beginnings of dialogues."""

from array import array
from collections.abc import Iterable, Iterator
from hashlib import sha256

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
        self._states: ByteCache[State] = ByteCache(max_bytes)
        self._lengths: set[int] = set()

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
        lengths = sorted(length for length in self._lengths if length < len(row.ids))
        for length, key in reversed([*_digests(row, lengths)]):
            if (state := self._states.get(key)) is not None:
                return length, state
        return 0, None

    def put(self, row: DialogueRow, length: int, state: State) -> None:
        """Keep the state behind the first `length` positions of a row."""
        if self._states.max_bytes:
            [(_, key)] = _digests(row, [length])
            self._states.put(key, state, state.nbytes)
            self._lengths.add(length)


def _digests(row: DialogueRow, lengths: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Yield each length with a hash of so many positions and of the inputs in them; lengths ascend."""
    ids, read, digest = array("q", row.ids), 0, sha256()
    for length in lengths:
        digest.update(ids[read:length].tobytes())
        read, whole = length, digest.copy()
        for span, item in zip(row.spans, row.inputs, strict=True):
            if span.start < length:
                whole.update(f"{span.start} {item.key} ".encode())
        yield length, whole.hexdigest()
