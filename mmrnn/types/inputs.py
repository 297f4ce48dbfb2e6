"""Contracts of the parts that prepare the input: tokenizers, prompts, data sets."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from mmrnn.types.sample import ImageSource, Sample, Turn
from mmrnn.types.span import Span


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        vocab: number of token ids; None on a class that reads it from a file.
        pad: id that fills rows up.
        ends: ids that end a reply (EOS).
        starts: ids that every text begins with (BOS).
    """

    vocab: int | None = None
    pad: int
    ends: tuple[int, ...]
    starts: tuple[int, ...] = ()

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without `starts`."""

    def encode_after(self, before: str, text: str) -> list[int]:
        """Return the ids of a text that directly follows another; by default those of the text by itself."""
        return self.encode(text)

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""


@runtime_checkable
class Prompt(Protocol):
    """Format of a dialogue.

    Attributes:
        stops: strings that end a reply.
        boxes: form in which the design writes boxes, a name in `mmrnn.prompts.boxes.CODECS`; None: it writes none.
    """

    stops: tuple[str, ...] = ()
    boxes: str | None = None

    @abstractmethod
    def spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Return the spans of a dialogue about `images` images; an empty last turn is the reply to generate.

        A first turn of the system replaces the prompt's own system message.

        Raises:
            ValueError: tags and images differ in number, or the prompt cannot format these turns.
        """

    def appended_spans(self, turns: Sequence[Turn], images: int) -> list[Span]:
        """Return the spans of a dialogue of which no turn was known when those before it were written.

        A conversation appends its turns in this way. By default the spans are those of `spans`; a prompt that writes
        words of later turns into earlier ones leaves them out here.

        Raises:
            ValueError: as of `spans`.
        """
        return self.spans(turns, images)


@runtime_checkable
class MapDataset(Protocol):
    """Samples by index. All but these two methods is optional.

    Attributes:
        generated: samples are computed when they are read, so that to measure all of them takes as long as to train.
    """

    generated: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`, counted from 0."""

    def left_out(self) -> Sequence[tuple[str, str]]:
        """Id of each record that is left out because it is invalid, and the reason; empty: none."""
        return ()

    def refused(self) -> Sequence[tuple[str, str]]:
        """Id of each of these records that is left out wholly, and the reason with its details; empty: none."""
        return ()

    def images(self) -> Iterator[ImageSource]:
        """Iterate over all distinct images, for caching features; empty: none are cached."""
        return iter(())

    def held_out(self, samples: int) -> "Mapping[str, MapDataset]":
        """Return the evaluation splits, about `samples` samples each; empty: nothing is evaluated."""
        return {}

    def order(self, seed: int) -> Callable[[int], int] | None:
        """Return the order to train in: the index of the n-th sample to read; None: a new permutation each epoch."""
        return None


@runtime_checkable
class StreamDataset(Protocol):
    """Samples in the order of a stream without a length. `left_out`, `images` and `held_out` are optional."""

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]:
        """Iterate over the samples from the beginning."""

    def left_out(self) -> Sequence[tuple[str, str]]:
        """Id of each record that is left out because it is invalid, and the reason; empty: none."""
        return ()

    def images(self) -> Iterator[ImageSource]:
        """Iterate over all distinct images, for caching features; empty: none are cached."""
        return iter(())

    def held_out(self, samples: int) -> Mapping[str, MapDataset]:
        """Return the evaluation splits, about `samples` samples each; empty: nothing is evaluated."""
        return {}
