"""Default data set: generated questions about scenes of OpenMoji drawings and handwritten digits."""

from functools import cached_property
from itertools import islice
from random import Random
from typing import Annotated, Literal

from mmrnn.data.demo.digits import Digit, split_digits
from mmrnn.data.demo.questions import KINDS, Question, ask
from mmrnn.data.demo.scene_dataset import SceneDataset, SceneImage, question_sample
from mmrnn.data.demo.scenes import MAX_OBJECTS, Scene, digit_scene, drawing_scene
from mmrnn.types import Bounds, PositiveInt, Probability, Seed
from mmrnn.types.sample import Sample

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


class DemoVQA(SceneDataset):
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
        super().__init__(
            SPLITS, split=split, scenes=scenes, rounds=rounds, turns=turns, names=names, holdout=holdout, fold=fold
        )
        if unknown := [kind for kind in kinds or () if kind not in SPLITS[split]]:
            raise ValueError(f"kinds ({', '.join(unknown)}) must be among {', '.join(SPLITS[split])} for split={split}")
        if size < 64:
            raise ValueError(f"size ({size}) must be 64 or more; drawings are indistinguishable on a smaller canvas")
        self.size, self.digits, self.seed = size, digits, seed
        self.kinds = tuple(kinds or SPLITS[split])
        # Data: the keys of images seed the generator, and published figures depend on every byte of them.
        self._root = f"images/{split}/{size}/{names}/{holdout}/{fold}/{seed}"

    def sample(self, number: int, visit: int) -> Sample:
        """Return a sample. See `SceneDataset`."""
        key, scene, questions = self._train(number, visit) if self.split == "train" else self._test(number)
        return question_sample(f"{key}/{visit}", questions, (SceneImage(key, scene),))

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
    def writing(self) -> tuple[Digit, ...]:
        """Handwritten digits of this split."""
        train, held_out = split_digits(self.fold)
        return held_out if self.split == "writing" else train

    def _train(self, number: int, visit: int) -> tuple[str, Scene, list[Question]]:
        """Scene of a training sample, and up to `turns` questions of different kinds."""
        key = f"{self._root}/{self.digits}/{'+'.join(self.kinds)}/{number}"
        rng = Random(key)
        while True:
            scene = self._digit_scene(rng) if rng.random() < self.digits else self._drawing_scene(rng)
            if any(ask(kind, scene, rng) for kind in self.kinds):
                break
        rng = Random(f"{key}/{self.turns}/{visit}")
        questions: list[Question] = []
        while not questions:  # a kind may reject a scene to balance its answers
            order = sorted(self.kinds, key=lambda kind: rng.expovariate(KIND_WEIGHTS.get(kind, 1.0)))
            asked = (ask(kind, scene, rng) for kind in order)
            questions = list(islice(filter(None, asked), self.turns))
        return key, scene, questions

    def _test(self, number: int) -> tuple[str, Scene, list[Question]]:
        """First random scene that allows a question of the kind of this number, and the question."""
        kind = self.kinds[number % len(self.kinds)]
        key = f"{self._root}/{kind}/{number // len(self.kinds)}"
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
        few = rng.sample(sorted(self.pools), rng.randint(1, min(number, 3)))
        chosen = self.choose_drawings(number, few, rng)
        if number == 2 and rng.random() < 0.5:
            chosen = chosen[:1] * 2
        return drawing_scene(rng, chosen, self.size)
