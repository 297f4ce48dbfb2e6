"""Contract of the processes that work together."""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Ranks(Protocol):
    """Processes that share work.

    Attributes:
        rank: of this process.
        size: number of processes.
    """

    rank: int
    size: int

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        ...

    def on_main(self, call: Callable[[], T]) -> T:
        """Return on all ranks what a function returns, or raise what it raises, on rank 0 alone."""
        ...


class Alone(Ranks):
    """This process alone."""

    rank, size = 0, 1

    def gather(self, value: T) -> list[T]:
        """Return the value of this process."""
        return [value]

    def on_main(self, call: Callable[[], T]) -> T:
        """Return what a function returns."""
        return call()
