"""Cache that is bounded in bytes."""

from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

V = TypeVar("V")


class ByteCache(Generic[V]):
    """Values by key, up to a number of bytes; the least recently used ones leave first. Threads may share it.

    Args:
        max_bytes: of all values; a larger value is not kept. 0: nothing is kept.

    Attributes:
        nbytes: of the values that are kept.

    Raises:
        ValueError: `max_bytes` is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes ({max_bytes}) must not be negative; 0 keeps nothing")
        self.max_bytes, self.nbytes = max_bytes, 0
        self._values: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> V | None:
        """Return a value, or None where there is none."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: str, value: V, nbytes: int) -> None:
        """Keep a value of that size in place of an older one."""
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self.nbytes -= before
            if nbytes > self.max_bytes:
                return
            self._values[key] = value, nbytes
            self.nbytes += nbytes
            while self.nbytes > self.max_bytes:
                _, (_, freed) = self._values.popitem(last=False)
                self.nbytes -= freed

    def values(self) -> list[V]:
        """Return all values; none counts as used by that."""
        with self._lock:
            return [value for value, _ in self._values.values()]

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()
            self.nbytes = 0
