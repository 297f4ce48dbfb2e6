"""A sample: what was said and what was shown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TAG = "<image>"
"""Marks in the text of a user's turn where a picture stands; the n-th tag is the n-th picture."""


@runtime_checkable
class Picture(Protocol):
    """A picture that is opened when it is needed. `key` names it for good, so that its features can be cached."""

    @property
    def key(self) -> str: ...

    def open(self) -> "Image":
        """The picture as RGB.

        Raises:
            PictureError: it cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says. An empty last turn of the assistant is the reply to generate."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A dialogue about any number of pictures. `kind` tells sorts of samples apart in a report, `id` names this one.

    `observations` are what other senses than the image read, by the name of the sense; `<state>` in a user's text
    marks where one for the sense `state` stands.
    """

    turns: tuple[Turn, ...]
    pictures: tuple[Picture, ...] = ()
    kind: str = ""
    id: str = ""
    observations: "Mapping[str, tuple[Tensor, ...]]" = field(default_factory=dict)


@runtime_checkable
class Dataset(Protocol):
    """Samples by number, and what a model that learnt from them is judged by."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def pictures(self) -> Iterator[Picture]:
        """Every picture, each once, so that features can be computed ahead."""
        ...

    def held_out(self, samples: int) -> "dict[str, Dataset]":
        """Samples that are not trained on, about so many of each sort; empty where nothing is held out."""
        ...
