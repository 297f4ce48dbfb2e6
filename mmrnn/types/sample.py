"""A sample: what was said and what was shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TAG = "<image>"
"""Marks in the text of a user's turn where an image stands; the n-th tag is the n-th image."""


@runtime_checkable
class ImageSource(Protocol):
    """An image that is opened when it is needed. `key` names it for good, so that its features can be cached."""

    @property
    def key(self) -> str: ...

    def open(self) -> "Image":
        """The image as RGB.

        Raises:
            ImageError: it cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says. An empty last turn of the assistant is the reply to generate."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A dialogue about any number of images. `kind` tells sorts of samples apart in a report, `id` names this one.

    `observations` are what other modalities than the image read, by the name of the modality; `<state>` in a user's text
    marks where one for the modality `state` stands.
    """

    turns: tuple[Turn, ...]
    images: tuple[ImageSource, ...] = ()
    kind: str = ""
    id: str = ""
    observations: "Mapping[str, tuple[Tensor, ...]]" = field(default_factory=dict)
