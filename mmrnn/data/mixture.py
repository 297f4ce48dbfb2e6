"""Several data sets at once, in given proportions."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING

from mmrnn.types import MapDataset
from mmrnn.types.sample import ImageSource, Sample

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Named:
    """An image of one part of a mix: two parts may call different images by one name."""

    part: str
    image: ImageSource

    @property
    def key(self) -> str:
        return f"{self.part}/{self.image.key}"

    def open(self) -> "Image":
        return self.image.open()


class Mixture(MapDataset):
    """Data sets in given proportions. An epoch is as long as it takes to read every sample of every part once; the
    samples of parts that have fewer than their share come again until then.

    Args:
        parts: data sets by name.
        weights: how often a sample comes from each of them, in any unit; null: every sample comes once an epoch.
    """

    def __init__(self, *, parts: Mapping[str, MapDataset], weights: Mapping[str, float] | None = None) -> None:
        if not parts:
            raise ValueError("parts is empty; name at least one data set")
        for name, weight in (weights or {}).items():
            if name not in parts:
                raise ValueError(f"weights.{name}: there is no such part; there are: {', '.join(parts)}")
            if weight <= 0:
                raise ValueError(f"weights.{name} ({weight}) must be above 0; leave the part out instead")
        if weights is not None and (missing := [name for name in parts if name not in weights]):
            raise ValueError(f"weights: {missing[0]} has none; give one to each part, or weights=null")
        self.parts, self.weights = dict(parts), weights

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many samples of each part an epoch has.

        Raises:
            ValueError: a part cannot be read; its name stands before the reason.
        """
        lengths = {}
        for name, part in self.parts.items():
            try:
                lengths[name] = len(part)
            except ValueError as error:
                raise ValueError(f"data.parts.{name}: {error}") from error
            if not lengths[name]:
                raise ValueError(f"data.parts.{name} is empty; leave it out")
        if self.weights is None:
            return lengths
        total = max(size / self.weights[name] for name, size in lengths.items())
        return {name: max(ceil(total * self.weights[name] - 1e-6), size) for name, size in lengths.items()}

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
        images = tuple(Named(name, image) for image in sample.images)
        return replace(sample, images=images, id=f"{name}/{sample.id}")

    def images(self) -> Iterator[Named]:
        """Every image, each once."""
        return (Named(name, image) for name, part in self.parts.items() for image in part.images())

    def held_out(self, samples: int) -> dict[str, MapDataset]:
        """What each part holds out, the name of the part before its own."""
        return {
            f"{name}: {split}": data
            for name, part in self.parts.items()
            for split, data in part.held_out(samples).items()
        }
