"""Conditions under which held-out questions are asked again: text behind their images, or examples before them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

from mmrnn.data.few_shot import joined
from mmrnn.evaluation.accuracy import examination
from mmrnn.types import MapDataset, Sample, Tokenizer
from mmrnn.types.sample import TAG

DISTANCE, SHOTS = "distance", "shots"
"""Keys of the conditions."""

LABEL = re.compile(r"(?P<split>.+)_(?P<key>after|shots)_(?P<value>[0-9]+)")
TOGETHER = re.compile(rf"(?P<split>.+)_by_(?P<key>{DISTANCE}|{SHOTS})")


class Condition(NamedTuple):
    """Split whose questions are asked, key of the condition, and its value."""

    split: str
    key: str
    value: str


class Conditions(NamedTuple):
    """Conditions beside the plain question.

    Attributes:
        distances: tokens of text between the images of a question and what follows them, in ascending order.
        shots: numbers of answered questions before it.
    """

    distances: Sequence[int] = ()
    shots: Sequence[int] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Conditions":
        """Return the conditions of `evaluate` in a configuration."""
        return cls(sorted({*settings.get("distance", ())}), sorted({*settings.get("shots", ())}))


def at_distance(split: str, distance: int) -> str:
    """Return the name of a split whose questions are asked behind so many tokens of text."""
    return f"{split}_after_{distance}"


def with_shots(split: str, shots: int) -> str:
    """Return the name of a split whose questions are asked behind so many examples."""
    return f"{split}_shots_{shots}"


def by_condition(split: str, key: str) -> str:
    """Return the name for the plain questions of a split together with those under all values of a condition."""
    return f"{split}_by_{key}"


def condition_of(name: str) -> Condition | None:
    """Return the condition of a split by its name; None: there is none."""
    found = LABEL.fullmatch(name)
    return Condition(found["split"], DISTANCE if found["key"] == "after" else SHOTS, found["value"]) if found else None


def key_of(name: str) -> str | None:
    """Return the key of the condition under whose values questions are together (`by_condition`); None: none."""
    found = TOGETHER.fullmatch(name)
    return found["key"] if found else None


def base_split(name: str) -> str:
    """Return the split whose questions one asks under a condition; of others the name itself."""
    found = LABEL.fullmatch(name) or TOGETHER.fullmatch(name)
    return found["split"] if found else name


def text_ids(data: MapDataset, tokenizer: Tokenizer, length: int) -> list[int]:
    """Return so many ids of text: the questions and replies of training samples one after the other, without images.

    Raises:
        ValueError: ids are wanted, and the samples have no text.
    """
    found: list[int] = []
    for text in _texts(data):
        if len(found) >= length:
            break
        found += tokenizer.encode(f" {text}" if found else f"\n{text}")
    if length and not found:
        raise ValueError(
            "evaluate.distance: the training samples have no text to put between an image and its question"
        )
    return [*islice(cycle(found), length)]


def _texts(data: MapDataset) -> Iterator[str]:
    for index in range(len(data)):
        yield from filter(None, (" ".join(turn.text.replace(TAG, "").split()) for turn in data[index].turns))


class Examples:
    """Answered questions of a split, as examples for others of the same kind.

    Args:
        split: samples; their references are shown with the question of another sample, never with their own.
    """

    def __init__(self, split: MapDataset) -> None:
        self._places: dict[str, list[int]] = {}
        self._samples = {
            index: asked for index in range(len(split)) if (asked := examination(split[index])) is not None
        }
        for index, asked in self._samples.items():
            self._places.setdefault(asked.kind, []).append(index)

    def before(self, index: int, sample: Sample, shots: int) -> Sample:
        """Return a sample with examples before its question: the next ones of its kind in the split, around its end.

        Args:
            index: of the sample in the split.
            sample: as it is asked.
            shots: number of examples.

        Raises:
            ValueError: there are not so many.
        """
        places = self._places[sample.kind]
        if len(places) <= shots:
            raise ValueError(f"there are {len(places) - 1:,} other questions of the kind, for {shots:,} examples")
        rank = places.index(index)
        chosen = [self._samples[place] for place in islice([*places[rank + 1 :], *places], shots)]
        return joined([*chosen, sample])
