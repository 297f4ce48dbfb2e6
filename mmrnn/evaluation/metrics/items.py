"""Items that metrics score, and the scores that they return."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from mmrnn.prompts.boxes import Box, Codec

LONGEST_REPLY = 10_000
"""Characters from which on a reply is wrong, whatever it begins with."""

YES_NO = ("yes", "no")
"""References of a question that is to be answered with one of two words."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A reply to one question.

    Attributes:
        id: of the question, once in a task; runs are paired by it.
        reply: of the model.
        kind: category of the question.
        image: that the question is about.
        valid: False: it counts as wrong whatever it says, since its question could not be asked.
    """

    id: str
    reply: str
    kind: str = ""
    image: str = ""
    valid: bool = True


@dataclass(frozen=True, kw_only=True)
class TextItem(Item):
    """A reply, and the texts that it is compared with.

    Attributes:
        truths: references, at least one.
    """

    truths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BoxItem(Item):
    """A reply that should hold a box.

    Attributes:
        box: reference in pixels.
        width: of the image in pixels.
        height: likewise.
        codec: form in which the model writes boxes (`prompts/boxes.py`).
    """

    box: Box
    width: int
    height: int
    codec: Codec


@dataclass(frozen=True)
class Scores:
    """Scores of one metric.

    Attributes:
        by_id: score of every question, in the order of the items.
        summary: what the metric reports of them all.
    """

    by_id: dict[str, float]
    summary: dict[str, float] = field(default_factory=dict)


T = TypeVar("T", bound=Item)


@runtime_checkable
class Metric(Protocol):
    """Scores the replies to all questions of a task."""

    def __call__(self, items: Sequence[Any]) -> Scores:
        """Return the scores of `TextItem`s or `BoxItem`s."""
        ...


def counts_as_wrong(item: Item) -> bool:
    """Return True for a reply that is not valid, or has `LONGEST_REPLY` characters or more."""
    return not item.valid or len(item.reply) >= LONGEST_REPLY


def check(items: Sequence[Item]) -> None:
    """Check that every question can be scored.

    Raises:
        ValueError: there are no items, an id comes twice, or an item has no reference.
    """
    if not items:
        raise ValueError("there are no replies to score")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"question {item.id!r} is answered twice: leave one of its replies out")
        if isinstance(item, TextItem) and not item.truths:
            raise ValueError(f"question {item.id!r} has no reference to be compared with")
        seen.add(item.id)


def score_each(items: Sequence[T], score: Callable[[T], float]) -> dict[str, float]:
    """Score every item; a reply that counts as wrong gets 0.

    Raises:
        ValueError: as `check`.
    """
    check(items)
    return {item.id: 0.0 if counts_as_wrong(item) else float(score(item)) for item in items}


def single_truth(item: TextItem, allowed: Sequence[str] = ()) -> str:
    """Return the one reference of an item.

    Args:
        item: to be scored.
        allowed: values that it may have; none: any.

    Raises:
        ValueError: it has several, or another value.
    """
    if len(item.truths) > 1:
        raise ValueError(f"question {item.id!r} has {len(item.truths)} references; this metric takes one")
    if allowed and item.truths[0] not in allowed:
        raise ValueError(f"reference of question {item.id!r} is {item.truths[0]!r}; one of {', '.join(allowed)} fits")
    return item.truths[0]


def by_kind(items: Sequence[T]) -> dict[str, list[T]]:
    """Return the items of every kind, kinds in the order of their first item."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(item.kind, []).append(item)
    return groups


def kind_means(items: Sequence[Item], scores: dict[str, float]) -> dict[str, float]:
    """Return the mean of all scores as `accuracy`, and that of each kind with a name as `KIND/accuracy`."""
    groups = {f"{kind}/accuracy": group for kind, group in by_kind(items).items() if kind}
    return {name: mean([scores[item.id] for item in group]) for name, group in {"accuracy": items, **groups}.items()}


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)
