"""Mixture of several data sets in given proportions."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING

from mmrnn.data.image import image_size
from mmrnn.types import ImageSource, MapDataset, PositiveFloat, Sample

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class PrefixedImage:
    """An image of one part of a mixture; its key has the name of the part, as parts may use the same keys.

    Attributes:
        part: name of the part.
        image: of the part.
    """

    part: str
    image: ImageSource

    @property
    def key(self) -> str:
        """Stable identifier of the image."""
        return f"{self.part}/{self.image.key}"

    def open(self) -> "Image":
        """Return the image as RGB.

        Raises:
            ImageError: the image cannot be opened.
        """
        return self.image.open()

    def size(self) -> tuple[int, int]:
        """Return width and height.

        Raises:
            ImageError: the image cannot be read.
        """
        return image_size(self.image)


class Mixture(MapDataset):
    """Data sets in given proportions.

    An epoch is long enough to read every sample of every part once; samples of parts that are smaller than their share
    repeat.

    Args:
        parts: data sets by name.
        weights: relative number of samples from each part, in any unit; None: every sample once an epoch.

    Raises:
        ValueError: no parts, or weights that do not name exactly the parts or are not positive.
    """

    def __init__(self, *, parts: Mapping[str, MapDataset], weights: Mapping[str, PositiveFloat] | None = None) -> None:
        if not parts:
            raise ValueError("parts is empty; name at least one data set")
        for name, weight in (weights or {}).items():
            if name not in parts:
                raise ValueError(f"weights.{name}: no such part; there are: {', '.join(parts)}")
            if weight <= 0:
                raise ValueError(f"weights.{name} ({weight}) must be above 0; remove the part instead")
        if weights is not None and (missing := [name for name in parts if name not in weights]):
            raise ValueError(f"weights: {missing[0]} has none; give one to each part, or set weights=null")
        self.parts, self.weights = dict(parts), weights

    @property
    def generated(self) -> bool:
        """True where the samples of some part are."""
        return any(part.generated for part in self.parts.values())

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of samples of each part in an epoch.

        Raises:
            ValueError: a part cannot be read; the message begins with its name.
        """
        lengths = {}
        for name, part in self.parts.items():
            try:
                lengths[name] = len(part)
            except ValueError as error:
                raise ValueError(f"data.parts.{name}: {error}") from error
            if not lengths[name]:
                raise ValueError(f"data.parts.{name} is empty; remove it")
        if self.weights is None:
            return lengths
        total = max(length / self.weights[name] for name, length in lengths.items())
        return {name: max(ceil(total * self.weights[name] - 1e-6), length) for name, length in lengths.items()}

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.sizes.values()))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample ({index}) must lie between 0 and {len(self) - 1}")
        number = bisect_right(self._ends, index)
        name, part = list(self.parts.items())[number]
        sample = part[(index - (self._ends[number - 1] if number else 0)) % len(part)]
        images = tuple(PrefixedImage(name, image) for image in sample.images)
        return replace(sample, images=images, id=f"{name}/{sample.id}")

    def left_out(self) -> list[tuple[str, str]]:
        """Id of each record left out of a part, with the name of the part, and the reason."""
        return [(f"{name}/{id}", reason) for name, part in self.parts.items() for id, reason in part.left_out()]

    def refused(self) -> list[tuple[str, str]]:
        """Id of each record left out of a part wholly, with the name of the part, and the reason with its details."""
        return [(f"{name}/{id}", reason) for name, part in self.parts.items() for id, reason in part.refused()]

    def images(self) -> Iterator[PrefixedImage]:
        """Iterate over all distinct images of all parts."""
        return (PrefixedImage(name, image) for name, part in self.parts.items() for image in part.images())

    def held_out(self, samples: int) -> dict[str, MapDataset]:
        """Return the evaluation splits of all parts, as `part: split`."""
        return {
            f"{name}: {split}": data
            for name, part in self.parts.items()
            for split, data in part.held_out(samples).items()
        }
