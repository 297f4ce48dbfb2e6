"""Default data set: generated questions about scenes of OpenMoji drawings and handwritten digits."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from random import Random
from typing import Annotated, Literal

from PIL import Image

from mmrnn.data.demo.digits import Digit, split_digits
from mmrnn.data.demo.drawings import Drawing, named_short_names, split_drawings
from mmrnn.data.demo.questions import KINDS, Question, ask
from mmrnn.data.demo.scenes import MAX_OBJECTS, Scene, digit_scene, drawing_scene
from mmrnn.types import Bounds, MapDataset, PositiveInt, Probability, Seed
from mmrnn.types.sample import TAG, Sample, Turn

SPLITS: dict[str, tuple[str, ...]] = {
    "train": KINDS,
    "scenes": KINDS,
    "drawings": ("category", "colour", "count", "count_of", "position", "describe", "same"),
    "writing": ("digits", "digit"),
}
"""Kinds of question of each split. `scenes`: new scenes of training drawings and digits; `drawings`: held-out drawings,
which no question names; `writing`: digits of held-out forms."""

DIGIT_KINDS = ("digits", "digit")
"""Kinds of question about handwriting."""

KIND_WEIGHTS = {
    "category": 1.5,
    "colour": 2.0,
    "count": 0.5,
    "count_of": 6.0,
    "position": 4.0,
    "describe": 7.0,
    "same": 6.0,
}
"""Relative frequency (default 1) in training of kinds that fewer scenes allow or that are harder to learn."""

NAMED_PROBABILITY = 0.65
"""Probability that a drawing is one that questions may name."""


def pools_by_category(drawings: Iterable[Drawing]) -> dict[str, tuple[list[Drawing], list[Drawing]]]:
    """Return drawings by category: those that questions may name, and the others."""
    pools: dict[str, tuple[list[Drawing], list[Drawing]]] = defaultdict(lambda: ([], []))
    for drawing in drawings:
        pools[drawing.category][not drawing.asked].append(drawing)
    return dict(pools)


@dataclass(frozen=True)
class SceneImage:
    """An image that is rendered when it is opened."""

    key: str
    scene: Scene

    def open(self) -> Image.Image:
        """Return the image as RGB."""
        return self.scene.render()


class DemoVQA(MapDataset):
    """Generated visual question answering; a sample depends on the knobs and its index alone, nothing is stored.

    The training split asks about each of `scenes` scenes `rounds` times, with other questions each time (sample `i`
    shows scene `i % scenes`), so that the features of the scenes can be cached. In the other splits every sample is a
    scene of its own with one question, and the kinds of question alternate.

    Args:
        split: `train`, or an evaluation split (see `SPLITS`).
        scenes: number of scenes.
        rounds: number of training samples with the same scene.
        turns: most questions in a training sample.
        size: height and width of an image in pixels.
        names: number of drawings that questions may name.
        holdout: share of the drawings of every category that only the split `drawings` shows.
        digits: share of the training scenes that show handwriting.
        fold: which drawings and forms are held out: 0 is reported, 1 is for choosing settings.
        kinds: kinds of question; None: all of the split.
        seed: of scenes and questions; held-out drawings and forms do not depend on it.

    Raises:
        ValueError: a knob is out of range.
    """

    generated = True

    def __init__(
        self,
        *,
        split: Literal["train", "scenes", "drawings", "writing"] = "train",
        scenes: PositiveInt = 7000,
        rounds: PositiveInt = 16,
        turns: PositiveInt = 4,
        size: Annotated[int, Bounds(ge=64)] = 128,
        names: PositiveInt = 60,
        holdout: Annotated[float, Bounds(gt=0, lt=1)] = 0.15,
        digits: Probability = 0.2,
        fold: Literal[0, 1] = 0,
        kinds: tuple[str, ...] | None = None,
        seed: Seed = 0,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split ({split}) must be one of {', '.join(SPLITS)}")
        if unknown := [kind for kind in kinds or () if kind not in SPLITS[split]]:
            raise ValueError(f"kinds ({', '.join(unknown)}) must be among {', '.join(SPLITS[split])} for split={split}")
        if size < 64:
            raise ValueError(f"size ({size}) must be 64 or more; drawings are indistinguishable on a smaller canvas")
        if min(scenes, rounds, turns) < 1:
            raise ValueError(f"scenes ({scenes}), rounds ({rounds}) and turns ({turns}) must be 1 or more")
        if not 0 < holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        if fold not in (0, 1):
            raise ValueError(f"fold ({fold}) must be 0, which is reported, or 1, to choose settings by")
        named_short_names(names)
        self.split, self.scenes, self.turns, self.size, self.seed = split, scenes, turns, size, seed
        self.names, self.holdout, self.digits, self.fold = names, holdout, digits, fold
        self.rounds = rounds if split == "train" else 1
        self.kinds = tuple(kinds or SPLITS[split])
        # Data: the keys of images seed the generator, and published figures depend on every byte of them.
        self._root = f"images/{split}/{size}/{names}/{holdout}/{fold}/{seed}"

    def __len__(self) -> int:
        return self.scenes * self.rounds

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample ({index}) must lie between 0 and {len(self) - 1}")
        key, scene, questions = self._train(index) if self.split == "train" else self._test(index)
        turns = []
        for question in questions:
            text = question.text if turns else f"{TAG}\n{question.text}"
            turns += [Turn("user", text), Turn("assistant", question.answer)]
        kind = questions[0].kind if len(questions) == 1 else ""
        return Sample(tuple(turns), (SceneImage(key, scene),), kind, f"{key}/{index // self.scenes}")

    def images(self) -> Iterator[SceneImage]:
        """Iterate over all distinct images."""
        return (self[index].images[0] for index in range(self.scenes))

    def held_out(self, samples: int = 1000) -> dict[str, "DemoVQA"]:
        """Return the evaluation splits with the same knobs, `samples` scenes each, where they ask any of `kinds`."""
        splits = {}
        for split in SPLITS:
            kinds = tuple(kind for kind in SPLITS[split] if kind in self.kinds)
            if split != "train" and kinds:
                splits[split] = DemoVQA(
                    split=split,
                    scenes=samples,
                    size=self.size,
                    names=self.names,
                    holdout=self.holdout,
                    fold=self.fold,
                    kinds=kinds,
                    seed=self.seed,
                )
        return splits

    @cached_property
    def drawings(self) -> tuple[Drawing, ...]:
        """Drawings of this split."""
        train, held_out = split_drawings(self.names, self.holdout, self.fold)
        return held_out if self.split == "drawings" else train

    @cached_property
    def writing(self) -> tuple[Digit, ...]:
        """Handwritten digits of this split."""
        train, held_out = split_digits(self.fold)
        return held_out if self.split == "writing" else train

    @cached_property
    def _pools(self) -> dict[str, tuple[list[Drawing], list[Drawing]]]:
        return pools_by_category(self.drawings)

    def _train(self, index: int) -> tuple[str, Scene, list[Question]]:
        """Scene of a training sample, and up to `turns` questions of different kinds."""
        key = f"{self._root}/{self.digits}/{'+'.join(self.kinds)}/{index % self.scenes}"
        rng = Random(key)
        while True:
            scene = self._digit_scene(rng) if rng.random() < self.digits else self._drawing_scene(rng)
            if any(ask(kind, scene, rng) for kind in self.kinds):
                break
        rng = Random(f"{key}/{self.turns}/{index // self.scenes}")
        questions: list[Question] = []
        while not questions:  # a kind may reject a scene to balance its answers
            order = sorted(self.kinds, key=lambda kind: rng.expovariate(KIND_WEIGHTS.get(kind, 1.0)))
            asked = (ask(kind, scene, rng) for kind in order)
            questions = list(islice(filter(None, asked), self.turns))
        return key, scene, questions

    def _test(self, index: int) -> tuple[str, Scene, list[Question]]:
        """First random scene that allows a question of the kind of this index, and the question."""
        kind = self.kinds[index % len(self.kinds)]
        key = f"{self._root}/{kind}/{index // len(self.kinds)}"
        rng = Random(key)
        while True:
            scene = self._digit_scene(rng) if kind in DIGIT_KINDS else self._drawing_scene(rng)
            if question := ask(kind, scene, rng):
                return key, scene, [question]

    def _digit_scene(self, rng: Random) -> Scene:
        return digit_scene(rng, rng.choices(self.writing, k=rng.randint(1, 4)), self.size)

    def _drawing_scene(self, rng: Random) -> Scene:
        """One to five drawings of up to three categories; half of the pairs show one drawing twice."""
        number = rng.randint(1, MAX_OBJECTS)
        few = rng.sample(sorted(self._pools), rng.randint(1, min(number, 3)))
        chosen: list[Drawing] = []
        while len(chosen) < number:
            pools = self._pools[rng.choice(few)]
            drawing = rng.choice(pools[0] if pools[0] and rng.random() < NAMED_PROBABILITY else pools[1] or pools[0])
            if drawing not in chosen:
                chosen.append(drawing)
        if number == 2 and rng.random() < 0.5:
            chosen = chosen[:1] * 2
        return drawing_scene(rng, chosen, self.size)
