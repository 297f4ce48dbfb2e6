"""Data set for comparing designs: scenes of the demo data set's drawings on a grid, eight kinds of question."""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Annotated, Literal

from mmrnn.data.demo.digits import split_digits
from mmrnn.data.demo.drawings import Drawing
from mmrnn.data.demo.grid_questions import ABOUT_ALL, ABOUT_ONE, ASK, LEAST, ask_grid, in_words
from mmrnn.data.demo.grid_scenes import CELLS, GridScene, grid_scene
from mmrnn.data.demo.questions import Question, ask, count_by
from mmrnn.data.demo.scene_dataset import SceneDataset, SceneImage, question_sample
from mmrnn.data.demo.scenes import Scene, digit_scene
from mmrnn.types import Bounds, NonNegativeInt, PositiveInt, Seed
from mmrnn.types.sample import Sample

SPLITS = ("train", "scenes", "drawings", "style")
"""`scenes`: new scenes of training drawings; `drawings`: held-out drawings, which no question names, and held-out forms
of handwriting; `style`: training drawings, outlined or with other colours."""

WRITING = "digits"
"""Kind of question about handwriting."""

SMALLEST_POOL = 6
"""Least number of drawings of a category in any split."""


class DemoQuestions(SceneDataset):
    """Generated visual question answering in which designs differ; a sample depends on the knobs and its index alone.

    Up to nine of the drawings of `DemoVQA` lie on a grid of three by three places. In every split the kinds of question
    alternate: `n` kinds and `n * 240` samples are 240 questions of each. In training, a scene is asked about `rounds`
    times, up to `turns` questions at a time.

    Args:
        split: `train`, or an evaluation split (see `SPLITS`).
        scenes: number of scenes.
        rounds: number of training samples with the same scene.
        turns: most questions in a training sample.
        size: height and width of an image in pixels.
        min_drawings: least number of drawings in a scene; a kind may need more.
        max_drawings: greatest number.
        distractors: shapes behind the drawings, which no question is about.
        mark: side in pixels of a mark on one of the drawings; 0: none, and no questions about it.
        images: most images of a sample; 1: without the kind `changed`, which compares two.
        ask_about: kinds of question about one thing or about all of them.
        shown: images of a sample: its own, those of another sample (the accuracy that needs no image), none, or what is
            in them in words, before the first question (to train a backbone without images).
        handwriting: also ask for handwritten digits, in scenes of their own.
        names: number of drawings that questions may name.
        holdout: share of the drawings of every category that only the split `drawings` shows.
        fold: which drawings and forms are held out: 0 is reported, 1 is for choosing settings.
        kinds: kinds of question; None: all that the other knobs allow.
        seed: of scenes and questions; held-out drawings and forms do not depend on it.

    Raises:
        ValueError: a knob is out of range, or the knobs leave no kind of question.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "scenes", "drawings", "style"] = "train",
        scenes: PositiveInt = 4000,
        rounds: PositiveInt = 16,
        turns: PositiveInt = 4,
        size: Annotated[int, Bounds(ge=128, le=512)] = 128,
        min_drawings: Annotated[int, Bounds(ge=1, le=9)] = 3,
        max_drawings: Annotated[int, Bounds(ge=1, le=9)] = 6,
        distractors: NonNegativeInt = 0,
        mark: Annotated[int, Bounds(ge=0, le=8)] = 6,
        images: Literal[1, 2] = 2,
        ask_about: Literal["one", "all", "both"] = "both",
        shown: Literal["own", "shuffled", "none", "words"] = "own",
        handwriting: bool = False,
        names: PositiveInt = 60,
        holdout: Annotated[float, Bounds(gt=0, lt=1)] = 0.15,
        fold: Literal[0, 1] = 0,
        kinds: tuple[str, ...] | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(
            SPLITS, split=split, scenes=scenes, rounds=rounds, turns=turns, names=names, holdout=holdout, fold=fold
        )
        if not 1 <= min_drawings <= max_drawings <= len(CELLS):
            raise ValueError(
                f"min_drawings ({min_drawings}) and max_drawings ({max_drawings}) must lie between 1 and {len(CELLS)}, "
                "the first not above the second"
            )
        if mark and not 4 <= mark <= 8:
            raise ValueError(f"mark ({mark}) must be 4 to 8 pixels, or 0 for none")
        self.knobs = {
            "size": size,
            "min_drawings": min_drawings,
            "max_drawings": max_drawings,
            "distractors": distractors,
            "mark": mark,
            "images": images,
            "ask_about": ask_about,
            "shown": shown,
            "handwriting": handwriting,
            "names": names,
            "holdout": holdout,
            "fold": fold,
            "seed": seed,
        }
        """Knobs that training and evaluation splits have in common."""
        self.shown = shown
        self.kinds = self._choose(kinds)
        if shown == "shuffled" and scenes < 2 * len(self.kinds):
            raise ValueError(f"scenes ({scenes}) must be {2 * len(self.kinds)} or more for shown=shuffled")
        looks = (size, min_drawings, max_drawings, distractors, mark, names, holdout, fold, seed)
        # Data: the keys of images seed the generator.
        self._root = f"grid/{split}/{'/'.join(map(str, looks))}"

    def _choose(self, kinds: tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the kinds of question of this split.

        Raises:
            ValueError: one that is asked for is not possible, or none is.
        """
        knobs = self.knobs
        lists = {"one": [*ABOUT_ONE], "all": [*ABOUT_ALL], "both": [*ASK]}
        possible = [kind for kind in lists[knobs["ask_about"]] if LEAST.get(kind, 1) <= knobs["max_drawings"]]
        possible = [kind for kind in possible if knobs["mark"] or kind != "mark"]
        possible = [kind for kind in possible if knobs["images"] > 1 or kind != "changed"]
        possible += [WRITING] * (knobs["handwriting"] and self.split != "style" and knobs["shown"] != "words")
        if unknown := [kind for kind in kinds or () if kind not in possible]:
            raise ValueError(f"kinds ({', '.join(unknown)}) must be among {', '.join(possible)} with these knobs")
        if not possible:
            raise ValueError("the knobs allow no kind of question")
        return tuple(kinds or possible)

    def sample(self, number: int, visit: int) -> Sample:
        """Return a sample. See `SceneDataset`."""
        key, scenes, questions = self._scenes_and_questions(number, visit)
        images, intro = (), None
        if self.shown == "own":
            images = _images(key, scenes)
        elif self.shown == "shuffled":
            images = _images(*self._scenes_and_questions(self._other(number), 0)[:2])
        elif self.shown == "words":
            intro = f"{in_words(scenes, Random(f'{key}/words/{visit}'))}\n"
        return question_sample(f"{key}/{visit}", questions, images, intro)

    def images(self) -> Iterator[SceneImage]:
        """Iterate over all distinct images."""
        return super().images() if self.shown in ("own", "shuffled") else iter(())

    def held_out(self, samples: int = 1920) -> "dict[str, DemoQuestions]":
        """Return the evaluation splits with the same knobs, `samples` questions each; in words there is no style."""
        splits = {}
        for split in SPLITS[1:3] if self.shown == "words" else SPLITS[1:]:
            kinds = tuple(kind for kind in self.kinds if kind != WRITING or split != "style")
            if kinds:
                splits[split] = DemoQuestions(split=split, scenes=samples, kinds=kinds, **self.knobs)
        return splits

    def _other(self, number: int) -> int:
        """Return another scene for the same kinds of question."""
        first, count = number % len(self.kinds), len(range(number % len(self.kinds), self.scenes, len(self.kinds)))
        return first + (number // len(self.kinds) + 1) % count * len(self.kinds)

    def _scenes_and_questions(self, number: int, visit: int) -> tuple[str, tuple[Scene, ...], list[Question]]:
        return self._train(number, visit) if self.split == "train" else self._test(number)

    def _train(self, number: int, visit: int) -> tuple[str, tuple[Scene, ...], list[Question]]:
        """Scenes of a training sample, and up to `turns` questions of the kinds that they allow."""
        kind = self.kinds[number % len(self.kinds)]
        kinds = (
            (kind,)
            if kind in (WRITING, "changed")
            else tuple(kind for kind in self.kinds if kind not in (WRITING, "changed"))
        )
        key = f"{self._root}/{'+'.join(self.kinds)}/{number}"
        rng = Random(key)
        scenes, question = self._scenes(kind, rng)
        rng = Random(f"{key}/{self.turns}/{visit}")
        order = rng.sample(kinds, len(kinds))
        asked = (self._ask(kind, scenes, rng) for kind in order)
        return key, scenes, [*islice(filter(None, asked), self.turns)] or [question]

    def _test(self, number: int) -> tuple[str, tuple[Scene, ...], list[Question]]:
        """First random scenes that allow a question of the kind of this index, and the question."""
        kind = self.kinds[number % len(self.kinds)]
        key = f"{self._root}/{kind}/{number // len(self.kinds)}"
        scenes, question = self._scenes(kind, Random(key))
        return key, scenes, [question]

    def _scenes(self, kind: str, rng: Random) -> tuple[tuple[Scene, ...], Question]:
        """Draw scenes until they allow a question of the kind."""
        while True:
            scenes = self._draw(kind, rng)
            if scenes and (question := self._ask(kind, scenes, rng)):
                return scenes, question

    def _ask(self, kind: str, scenes: tuple[Scene, ...], rng: Random) -> Question | None:
        return ask(kind, scenes[0], rng) if kind == WRITING else ask_grid(kind, scenes, rng)

    def _draw(self, kind: str, rng: Random) -> tuple[Scene, ...]:
        """Draw a scene, for `changed` two in which one drawing differs; empty: there is none to replace."""
        knobs = self.knobs
        if kind == WRITING:
            forms = split_digits(knobs["fold"])[self.split == "drawings"]
            return (digit_scene(rng, rng.choices(forms, k=rng.randint(1, 4)), knobs["size"]),)
        number = rng.randint(max(knobs["min_drawings"], LEAST.get(kind, 1)), knobs["max_drawings"])
        most = min(number, len(self.pools))
        few = rng.sample(sorted(self.pools), rng.randint(-(-number // SMALLEST_POOL), most))
        drawings, cells = self.choose_drawings(number, few, rng), rng.sample(CELLS, number)
        style = rng.choice(("outlined", "recoloured")) if self.split == "style" else "plain"
        scene = self._lay_out(drawings, cells, style, rng)
        if kind != "changed":
            return (scene,)
        counts = count_by(scene, "category")
        single = [rank for rank, drawing in enumerate(drawings) if counts[drawing.category] == 1]
        unused = [category for category in sorted(self.pools) if category not in counts]
        if not single or not unused:
            return ()
        drawings[rng.choice(single)] = self.choose_drawing(rng.choice(unused), rng)
        return scene, self._lay_out(drawings, cells, style, rng)

    def _lay_out(self, drawings: list[Drawing], cells: list[tuple[int, int]], style: str, rng: Random) -> GridScene:
        knobs = self.knobs
        return grid_scene(
            rng, drawings, cells, knobs["size"], style=style, shapes=knobs["distractors"], mark=knobs["mark"]
        )


def _images(key: str, scenes: tuple[Scene, ...]) -> tuple[SceneImage, ...]:
    return tuple(SceneImage(f"{key}/{rank}", scene) for rank, scene in enumerate(scenes))
