"""Generated data sets of questions about scenes: their knobs, samples and choice of drawings."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from PIL import Image

from mmrnn.data.demo.drawings import Drawing, named_short_names, split_drawings
from mmrnn.data.demo.questions import Question
from mmrnn.data.demo.scenes import Scene
from mmrnn.types import MapDataset
from mmrnn.types.sample import TAG, Sample, Turn

NAMED_PROBABILITY = 0.65
"""Probability that a drawing is one that questions may name."""


@dataclass(frozen=True)
class SceneImage:
    """An image that is rendered when it is opened."""

    key: str
    scene: Scene

    def open(self) -> Image.Image:
        """Return the image as RGB."""
        return self.scene.render()


class SceneDataset(MapDataset):
    """Questions about generated scenes; a sample depends on the knobs and its index alone, nothing is stored.

    In the split `train`, sample `i` shows scene `i % scenes`, each of them `rounds` times. In the other splits every
    sample is a scene of its own.

    Args:
        splits: that there are.
        split: one of them; `drawings` has held-out drawings.
        scenes: number of scenes.
        rounds: number of training samples with the same scene.
        turns: most questions in a training sample.
        names: number of drawings that questions may name.
        holdout: share of the drawings of every category that only the split `drawings` shows.
        fold: which drawings are held out.

    Raises:
        ValueError: one of them is out of range.
    """

    generated = True

    def __init__(
        self,
        splits: Collection[str],
        *,
        split: str,
        scenes: int,
        rounds: int,
        turns: int,
        names: int,
        holdout: float,
        fold: int,
    ) -> None:
        if split not in splits:
            raise ValueError(f"split ({split}) must be one of {', '.join(splits)}")
        if min(scenes, rounds, turns) < 1:
            raise ValueError(f"scenes ({scenes}), rounds ({rounds}) and turns ({turns}) must be 1 or more")
        if not 0 < holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        if fold not in (0, 1):
            raise ValueError(f"fold ({fold}) must be 0, which is reported, or 1, to choose settings by")
        named_short_names(names)
        self.split, self.scenes, self.turns = split, scenes, turns
        self.names, self.holdout, self.fold = names, holdout, fold
        self.rounds = rounds if split == "train" else 1

    @abstractmethod
    def sample(self, number: int, visit: int) -> Sample:
        """Return the sample that shows scene `number` for the time `visit`, both counted from 0."""

    def __len__(self) -> int:
        return self.scenes * self.rounds

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample ({index}) must lie between 0 and {len(self) - 1}")
        visit, number = divmod(index, self.scenes)
        return self.sample(number, visit)

    def images(self) -> Iterator[SceneImage]:
        """Iterate over all distinct images."""
        return (image for number in range(self.scenes) for image in self[number].images)

    @cached_property
    def drawings(self) -> tuple[Drawing, ...]:
        """Drawings of this split."""
        train, held_out = split_drawings(self.names, self.holdout, self.fold)
        return held_out if self.split == "drawings" else train

    @cached_property
    def pools(self) -> dict[str, tuple[list[Drawing], list[Drawing]]]:
        """Drawings of this split by category: those that questions may name, and the others."""
        pools: dict[str, tuple[list[Drawing], list[Drawing]]] = defaultdict(lambda: ([], []))
        for drawing in self.drawings:
            pools[drawing.category][not drawing.asked].append(drawing)
        return dict(pools)

    def choose_drawings(self, number: int, categories: Sequence[str], rng: Random) -> list[Drawing]:
        """Choose different drawings of some categories."""
        chosen: list[Drawing] = []
        while len(chosen) < number:
            drawing = self.choose_drawing(rng.choice(categories), rng)
            if drawing not in chosen:
                chosen.append(drawing)
        return chosen

    def choose_drawing(self, category: str, rng: Random) -> Drawing:
        """Choose a drawing of a category, more often one that questions may name."""
        named, others = self.pools[category]
        return rng.choice(named if named and rng.random() < NAMED_PROBABILITY else others or named)


def question_sample(
    id: str, questions: Sequence[Question], images: tuple[SceneImage, ...], intro: str | None = None
) -> Sample:
    """Return the sample in which questions are asked in turn; that of one question has its kind.

    Args:
        id: of the sample.
        questions: at least one.
        images: that they are about.
        intro: what the first turn begins with; None: the images.
    """
    start = f"{TAG}\n" * len(images) if intro is None else intro
    turns = []
    for question in questions:
        turns += [Turn("user", start + question.text), Turn("assistant", question.answer)]
        start = ""
    return Sample(tuple(turns), images, questions[0].kind if len(questions) == 1 else "", id)
