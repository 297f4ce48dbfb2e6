"""The default data set: questions about scenes of OpenMoji drawings and handwritten digits, made on the spot."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from random import Random
from typing import Literal

from PIL import Image

from mmrnn.data.demo.digits import Digit, handwriting
from mmrnn.data.demo.drawings import Drawing, concepts, taken
from mmrnn.data.demo.questions import KINDS, Question, ask
from mmrnn.data.demo.scenes import MAX_OBJECTS, Scene, row, scatter
from mmrnn.types import MapDataset
from mmrnn.types.sample import TAG, Sample, Turn

SPLITS: dict[str, tuple[str, ...]] = {
    "train": KINDS,
    "scenes": KINDS,
    "drawings": ("category", "colour", "count", "count_of", "position", "describe", "same"),
    "writing": ("digits", "digit"),
}
"""What each split asks: new scenes of what training sees; scenes of held-out drawings, which nobody could name; rows of
digits from held-out forms."""

HANDWRITTEN = ("digits", "digit")

EAGER = {
    "category": 1.5,
    "colour": 2.0,
    "count": 0.5,
    "count_of": 6.0,
    "position": 4.0,
    "describe": 7.0,
    "same": 6.0,
}
"""How much more often than the others training asks a kind that scenes allow less often or that is harder to learn."""

FAMILIAR = 0.65
"""The chance of a drawing to be one that is asked by name."""


@dataclass(frozen=True)
class SceneImage:
    """An image that is painted when it is opened."""

    key: str
    scene: Scene

    def open(self) -> Image.Image:
        return self.scene.render()


class DemoVQA(MapDataset):
    """Samples by number, each determined by the knobs and its number alone; nothing is written to disk.

    In training a bank of `scenes` scenes is asked about `rounds` times, each time with other questions (sample `i`
    shows scene `i % scenes`), so that the features of the bank can be computed once. In the other splits every sample
    is a scene of its own with one question, and the kinds of question take turns.

    Args:
        split: what the samples are for; all but `train` hold something out (see `SPLITS`).
        scenes: how many scenes there are.
        rounds: how many training samples show the same scene.
        turns: questions in a training sample, where the scene allows as many.
        size: height and width of an image in pixels.
        names: how many drawings are asked by name.
        holdout: the share of drawings, of every category, that only the split `drawings` shows.
        digits: the share of training scenes that show handwriting.
        fold: which part is held out: 0, which is reported, or 1, to choose settings by without having seen the other.
        kinds: the kinds of question to ask; None takes all that the split asks.
        seed: of scenes and questions. Which drawings and which forms are held out does not depend on it.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "scenes", "drawings", "writing"] = "train",
        scenes: int = 7000,
        rounds: int = 16,
        turns: int = 4,
        size: int = 128,
        names: int = 60,
        holdout: float = 0.15,
        digits: float = 0.2,
        fold: int = 0,
        kinds: tuple[str, ...] | None = None,
        seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split ({split}) must be one of {', '.join(SPLITS)}")
        if unknown := [kind for kind in kinds or () if kind not in SPLITS[split]]:
            raise ValueError(f"kinds ({', '.join(unknown)}) must be among {', '.join(SPLITS[split])} for split={split}")
        if size < 64:
            raise ValueError(f"size ({size}) must be 64 or more; drawings cannot be told apart on a smaller canvas")
        if min(scenes, rounds, turns) < 1:
            raise ValueError(f"scenes ({scenes}), rounds ({rounds}) and turns ({turns}) must be 1 or more")
        if not 0 < holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        if fold not in (0, 1):
            raise ValueError(f"fold ({fold}) must be 0, which is reported, or 1, to choose settings by")
        taken(names)
        self.split, self.scenes, self.turns, self.size, self.seed = split, scenes, turns, size, seed
        self.names, self.holdout, self.digits, self.fold = names, holdout, digits, fold
        self.rounds = rounds if split == "train" else 1
        self.kinds = tuple(kinds or SPLITS[split])
        self._root = f"pictures/{split}/{size}/{names}/{holdout}/{fold}/{seed}"

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
        """Every image, each once."""
        return (self[index].images[0] for index in range(self.scenes))

    def held_out(self, samples: int = 1000) -> dict[str, "DemoVQA"]:
        """The splits that a model trained on this one is judged by, with the same knobs, where `kinds` leaves any."""
        tests = {}
        for split in SPLITS:
            kinds = tuple(kind for kind in SPLITS[split] if kind in self.kinds)
            if split != "train" and kinds:
                tests[split] = DemoVQA(
                    split=split,
                    scenes=samples,
                    size=self.size,
                    names=self.names,
                    holdout=self.holdout,
                    fold=self.fold,
                    kinds=kinds,
                    seed=self.seed,
                )
        return tests

    @cached_property
    def drawings(self) -> tuple[Drawing, ...]:
        """The drawings that this split shows."""
        train, held_out = concepts(self.names, self.holdout, self.fold)
        return held_out if self.split == "drawings" else train

    @cached_property
    def writing(self) -> tuple[Digit, ...]:
        """The handwritten digits that this split shows."""
        train, held_out = handwriting(self.fold)
        return held_out if self.split == "writing" else train

    @cached_property
    def _pools(self) -> dict[str, tuple[list[Drawing], list[Drawing]]]:
        """Category -> drawings that are asked by name, others."""
        pools: dict[str, tuple[list[Drawing], list[Drawing]]] = defaultdict(lambda: ([], []))
        for drawing in self.drawings:
            pools[drawing.category][not drawing.asked].append(drawing)
        return dict(pools)

    def _train(self, index: int) -> tuple[str, Scene, list[Question]]:
        """One scene of the bank, and up to `turns` questions of different kinds."""
        key = f"{self._root}/{self.digits}/{'+'.join(self.kinds)}/{index % self.scenes}"
        rng = Random(key)
        while True:
            scene = self._written(rng) if rng.random() < self.digits else self._drawn(rng)
            if any(ask(kind, scene, rng) for kind in self.kinds):
                break
        rng = Random(f"{key}/{self.turns}/{index // self.scenes}")
        questions: list[Question] = []
        while not questions:  # a kind may decline a scene for the sake of balance
            order = sorted(self.kinds, key=lambda kind: rng.expovariate(EAGER.get(kind, 1.0)))
            asked = (ask(kind, scene, rng) for kind in order)
            questions = list(islice(filter(None, asked), self.turns))
        return key, scene, questions

    def _test(self, index: int) -> tuple[str, Scene, list[Question]]:
        """One question of the kind whose turn it is, and the first scene that allows it."""
        kind = self.kinds[index % len(self.kinds)]
        key = f"{self._root}/{kind}/{index // len(self.kinds)}"
        rng = Random(key)
        while True:
            scene = self._written(rng) if kind in HANDWRITTEN else self._drawn(rng)
            if question := ask(kind, scene, rng):
                return key, scene, [question]

    def _written(self, rng: Random) -> Scene:
        return row(rng, rng.choices(self.writing, k=rng.randint(1, 4)), self.size)

    def _drawn(self, rng: Random) -> Scene:
        """One to five drawings, as often each, of up to three categories; two are the same one half of the time."""
        number = rng.randint(1, MAX_OBJECTS)
        few = rng.sample(sorted(self._pools), rng.randint(1, min(number, 3)))
        chosen: list[Drawing] = []
        while len(chosen) < number:
            pools = self._pools[rng.choice(few)]
            drawing = rng.choice(pools[0] if pools[0] and rng.random() < FAMILIAR else pools[1] or pools[0])
            if drawing not in chosen:
                chosen.append(drawing)
        if number == 2 and rng.random() < 0.5:
            chosen = chosen[:1] * 2
        return scatter(rng, chosen, self.size)
