"""Ranges of numbers in signatures: `depth: PositiveInt`, `dropout: Fraction`."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Protocol, runtime_checkable


@runtime_checkable
class Constraint(Protocol):
    """Condition on a value that its type cannot say; it stands in `Annotated[type, constraint]`."""

    def expected(self) -> str:
        """Return the condition as it follows the name of the type in a message: `of at least 1`."""

    def holds(self, value: Any) -> bool:
        """Return True for a value that meets the condition."""


@runtime_checkable
class ChecksKnobs(Protocol):
    """A class that compares its knobs with each other, or with another library, before it is built."""

    @classmethod
    @abstractmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the name (`arch.num_hidden_layers`) and the fault of knobs that each have the right type."""


@dataclass(frozen=True)
class Bounds(Constraint):
    """Range of a number.

    Attributes:
        ge: the least value.
        gt: a number below every value.
        le: the greatest value.
        lt: a number above every value.
    """

    ge: float | int = -inf
    gt: float | int = -inf
    le: float | int = inf
    lt: float | int = inf

    def expected(self) -> str:
        """Return the range: `of at least 1`, `above 0 and below 1`."""
        limits = [f"of at least {self.ge}"] * (self.ge > -inf) + [f"above {self.gt}"] * (self.gt > -inf)
        limits += [f"of at most {self.le}"] * (self.le < inf) + [f"below {self.lt}"] * (self.lt < inf)
        return " and ".join(limits) or "that is finite"

    def holds(self, value: float | int) -> bool:
        """Return True for a finite number in the range."""
        return self.ge <= value <= self.le and self.gt < value < self.lt


PositiveInt = Annotated[int, Bounds(ge=1)]
"""1, 2, 3, ..."""

NonNegativeInt = Annotated[int, Bounds(ge=0)]
"""0, 1, 2, ..."""

FiniteFloat = Annotated[float, Bounds()]
"""Any number except infinity and NaN."""

PositiveFloat = Annotated[float, Bounds(gt=0)]
"""A finite number above 0."""

NonNegativeFloat = Annotated[float, Bounds(ge=0)]
"""A finite number, 0 or above."""

Fraction = Annotated[float, Bounds(ge=0, lt=1)]
"""A share that leaves a rest: at least 0 and below 1."""

Probability = Annotated[float, Bounds(ge=0, le=1)]
"""From 0 to 1, both included."""

Seed = Annotated[int, Bounds(ge=0, lt=2**63)]
"""Seed that every random generator takes."""
