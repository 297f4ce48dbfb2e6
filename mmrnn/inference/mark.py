"""Marks: places in a dialogue that reading can be resumed at."""

from typing import NamedTuple

from mmrnn.inference.dialogue import DialogueInput, DialogueRow
from mmrnn.types import State


class Mark(NamedTuple):
    """A place in a dialogue that reading can be resumed at.

    Attributes:
        exchanges: number of exchanges that were begun before it.
        length: positions before it.
        digest: of these positions and of the images in them.
        state: after them.
    """

    exchanges: int
    length: int
    digest: str
    state: State

    def begins(self, row: DialogueRow) -> bool:
        """Return True where a row begins with these positions and is longer."""
        return self.length < len(row.ids) and row.digest(self.length) == self.digest


class SeenFrames(NamedTuple):
    """Frames of a stream that were read before the first question of a dialogue about them.

    Attributes:
        item: input in their place.
        mark: behind the last of them.
        weights: `DialogueReader.weights` when they were read.
    """

    item: DialogueInput
    mark: Mark
    weights: list[int]
