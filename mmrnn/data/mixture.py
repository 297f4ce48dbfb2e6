"""Mixture of several data sets in given proportions."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Annotated

from mmrnn.data.image import image_size
from mmrnn.data.orders import MixedOrder
from mmrnn.data.sampler import Order
from mmrnn.types import ImageSource, MapDataset, PositiveFloat, Sample
from mmrnn.types.bounds import Bounds

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
    repeat. A part may be a mixture itself.

    Args:
        parts: data sets by name.
        weights: relative number of samples from each part, in any unit; None: by the sizes of the parts.
        temperature: without weights, samples are taken from each part in proportion to its size to the power of
            1 / `temperature`. 1: every sample once an epoch; larger: closer to equal numbers from all parts.

    Raises:
        ValueError: no parts, weights that do not name exactly the parts or are not positive, or weights and a
            temperature.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, MapDataset],
        weights: Mapping[str, PositiveFloat] | None = None,
        temperature: Annotated[float, Bounds(ge=1)] = 1.0,
    ) -> None:
        if not parts:
            raise ValueError("parts is empty; name at least one data set")
        for name, weight in (weights or {}).items():
            if name not in parts:
                raise ValueError(f"weights.{name}: no such part; there are: {', '.join(parts)}")
            if weight <= 0:
                raise ValueError(f"weights.{name} ({weight}) must be above 0; remove the part instead")
        if weights is not None and (missing := [name for name in parts if name not in weights]):
            raise ValueError(f"weights: {missing[0]} has none; give one to each part, or set weights=null")
        if temperature < 1:
            raise ValueError(f"temperature ({temperature}) must be at least 1")
        if weights is not None and temperature != 1:
            raise ValueError(f"temperature ({temperature}) has a meaning without weights only; set weights=null")
        self.parts, self.weights, self.temperature = dict(parts), weights, temperature

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
        if self.weights is None and self.temperature == 1:
            return lengths
        weights = self.weights or {name: length ** (1 / self.temperature) for name, length in lengths.items()}
        total = max(length / weights[name] for name, length in lengths.items())
        return {name: max(ceil(total * weights[name] - 1e-6), length) for name, length in lengths.items()}

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

    def order(self, seed: int) -> Order | None:
        """Return the order of the parts where one of them has its own; None: all samples are shuffled."""
        orders = [part.order(seed) for part in self.parts.values()]
        return MixedOrder(list(self.sizes.values()), orders, seed=seed) if any(orders) else None

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
