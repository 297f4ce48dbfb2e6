"""Sample of a data set: a dialogue and its images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TAG = "<image>"
"""Placeholder of an image in a user turn; the n-th tag is the n-th image."""


@runtime_checkable
class ImageSource(Protocol):
    """Image that is opened on demand."""

    @property
    def key(self) -> str:
        """Stable identifier, under which features are cached."""
        ...

    def open(self) -> "Image":
        """Return the image as RGB.

        Raises:
            ImageError: the image cannot be read.
        """
        ...


@runtime_checkable
class InputSource(Protocol):
    """Input of another modality that is read on demand, such as a clip of sound."""

    @property
    def key(self) -> str:
        """Stable identifier."""
        ...

    def open(self) -> "Tensor":
        """Return the input, `objects features`.

        Raises:
            ImageError: it cannot be read.
        """
        ...


@runtime_checkable
class SizedInput(InputSource, Protocol):
    """Input of another modality whose size is known without reading all of it."""

    def size(self) -> tuple[int, int]:
        """Return objects and features of the tensor that `open` returns.

        Raises:
            ImageError: the input cannot be read.
        """
        ...


@runtime_checkable
class SizedImage(ImageSource, Protocol):
    """Image whose size is known without decoding it."""

    def size(self) -> tuple[int, int]:
        """Return width and height of the image that `open` returns.

        Raises:
            ImageError: the image cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a dialogue. An empty last turn of the assistant is the reply to generate.

    A first turn of the system is written in place of the system message of the prompt.
    """

    role: Literal["user", "assistant", "system"]
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A dialogue about any number of images.

    Attributes:
        turns: of user and assistant, perhaps with one of the system first.
        images: one for every `<image>` of the user turns, in their order.
        kind: category in reports.
        id: identifier in logs.
        observations: inputs of other modalities by the name of the modality, each `objects features` or read on
            demand; the user turns have one `<state>` for each of `state`.
        class_id: class of the first image; None: not known.
    """

    turns: tuple[Turn, ...]
    images: tuple[ImageSource, ...] = ()
    kind: str = ""
    id: str = ""
    observations: "Mapping[str, tuple[Tensor | InputSource, ...]]" = field(default_factory=dict)
    class_id: int | None = None
