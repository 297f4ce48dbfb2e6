"""Samples behind answered examples, and dialogues put together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

from mmrnn.types import ImageSource, MapDataset, PositiveInt, Sample, Seed


def joined(samples: Sequence[Sample]) -> Sample:
    """Return the dialogues of some samples as one, with the id, the kind and the system message of the last one."""
    last = samples[-1]
    system = [turn for turn in last.turns if turn.role == "system"]
    turns = [turn for sample in samples for turn in sample.turns if turn.role != "system"]
    observations = {
        name: tuple(one for sample in samples for one in sample.observations.get(name, ()))
        for name in dict.fromkeys(name for sample in samples for name in sample.observations)
    }
    images = tuple(image for sample in samples for image in sample.images)
    return replace(last, turns=(*system, *turns), images=images, observations=observations)


class FewShot(MapDataset):
    """Samples of a data set, each behind some of its others: what a model sees that is asked with examples.

    Every turn of the examples is trained on, as those of the sample are. Held-out questions are those of the data set;
    `evaluate.shots` asks them behind examples. Rows are as many times longer: set `max_length`.

    Args:
        data: the data set.
        shots: number of examples before each sample.
        seed: of their choice, which depends on the index of a sample alone.

    Raises:
        ValueError: `shots` is below 1.
    """

    def __init__(self, *, data: MapDataset, shots: PositiveInt = 4, seed: Seed = 0) -> None:
        if shots < 1:
            raise ValueError(f"shots ({shots}) must be at least 1; take the data set itself in place of 0")
        self.data, self.shots, self.seed = data, shots, seed

    @property
    def generated(self) -> bool:
        """True where the samples of the data set are."""
        return self.data.generated

    def __len__(self) -> int:
        """Return the number of samples.

        Raises:
            ValueError: the data set has too few for the examples.
        """
        if len(self.data) <= self.shots:
            raise ValueError(f"data: {len(self.data)} samples are too few for {self.shots} examples before each")
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        others = Random(f"{self.seed}/{index}").sample(range(len(self) - 1), self.shots)
        chosen = [other + (other >= index) for other in others]  # all but the sample itself
        return joined([*(self.data[other] for other in chosen), self.data[index]])

    def left_out(self) -> Sequence[tuple[str, str]]:
        """Id of each record that the data set leaves out, and the reason."""
        return self.data.left_out()

    def refused(self) -> Sequence[tuple[str, str]]:
        """Id of each of these records that is left out wholly, and the reason with its details."""
        return self.data.refused()

    def images(self) -> Iterator[ImageSource]:
        """Iterate over all distinct images of the data set."""
        return self.data.images()

    def held_out(self, samples: int) -> Mapping[str, MapDataset]:
        """Return the evaluation splits of the data set, without examples."""
        return self.data.held_out(samples)

    def order(self, seed: int) -> Callable[[int], int] | None:
        """Return the order of the data set."""
        return self.data.order(seed)
