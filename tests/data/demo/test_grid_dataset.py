import pickle
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data import DemoQuestions
from mmrnn.data.demo.grid_dataset import SPLITS
from mmrnn.data.demo.grid_questions import ABOUT_ALL, ABOUT_ONE, ASK, PLACES
from mmrnn.evaluation.blind_baselines import baselines

HELD_OUT = SPLITS[1:]
PER_KIND = 240


@cache
def asked(split: str) -> list:
    dataset = DemoQuestions().held_out(PER_KIND * len(ASK))[split]
    return [dataset[number] for number in range(len(dataset))]


@cache
def trained() -> list:
    dataset = DemoQuestions()
    return [dataset[number] for number in range(2000)]


@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_is_determined_by_its_number(split):
    one, again = (DemoQuestions(split=split, scenes=40, rounds=2, handwriting=True) for _ in range(2))
    for number in (39, 7, 0, 8):
        mine, theirs = one[number], pickle.loads(pickle.dumps(again))[number]
        assert mine == theirs
        assert [i.open().tobytes() for i in mine.images] == [i.open().tobytes() for i in theirs.images]
    assert one[3] != DemoQuestions(split=split, scenes=40, rounds=2, handwriting=True, seed=1)[3]


@pytest.mark.parametrize("split", HELD_OUT)
def test_every_kind_is_asked_240_times(split):
    kinds = Counter(sample.kind for sample in asked(split))
    assert kinds == dict.fromkeys(ASK, PER_KIND)
    assert all(len(sample.turns) == 2 for sample in asked(split))
    assert len({sample.id for sample in asked(split)}) == len(asked(split))


def test_a_longer_split_begins_with_the_shorter_one():
    short = DemoQuestions().held_out(80)["scenes"]
    assert [short[number] for number in range(80)] == asked("scenes")[:80]


@pytest.mark.parametrize("split", HELD_OUT)
def test_no_kind_is_answered_from_the_question_alone(split):
    for kind, found in baselines(trained(), asked(split)).items():
        assert found.blind < found.majority + 0.05, f"{kind}: {found}"
        assert found.majority < {"count_of": 0.4, "mark": 0.25}.get(kind, 0.2), f"{kind}: {found}"


def test_what_is_held_out_is_never_trained_on():
    def shown(samples):
        return {placed.thing.char for sample in samples for image in sample.images for placed in image.scene.drawings}

    assert len(shown(asked("drawings"))) > 50
    assert not shown(asked("drawings")) & (shown(trained()) | shown(asked("scenes")) | shown(asked("style")))
    keys = [{image.key for sample in samples for image in sample.images} for samples in (trained(), asked("scenes"))]
    assert not keys[0] & keys[1]
    folds = [DemoQuestions(split="drawings", scenes=400, fold=fold) for fold in (0, 1)]
    assert not shown(folds[0][n] for n in range(400)) & shown(folds[1][n] for n in range(400))


def test_styles_are_those_of_their_split():
    styles = {split: {image.scene.style for sample in asked(split) for image in sample.images} for split in HELD_OUT}
    assert styles == {"scenes": {"plain"}, "drawings": {"plain"}, "style": {"outlined", "recoloured"}}
    assert {image.scene.style for sample in trained() for image in sample.images} == {"plain"}


def test_a_training_scene_is_asked_anew_in_every_round():
    dataset = DemoQuestions(scenes=40, rounds=3)
    assert len(dataset) == 120
    for number in range(40):
        rounds = [dataset[number + 40 * visit] for visit in range(3)]
        assert len({sample.images for sample in rounds}) == 1
        assert len({sample.id for sample in rounds}) == 3
    assert {image.key for image in dataset.images()} == {i.key for n in range(40) for i in dataset[n].images}


@pytest.mark.parametrize("split", ["train", "scenes"])
def test_shuffled_images_are_those_of_another_sample(split):
    own, other = (DemoQuestions(split=split, scenes=21, rounds=2, shown=shown) for shown in ("own", "shuffled"))
    assert {image.key for image in own.images()} == {image.key for image in other.images()}
    for number in range(len(own)):
        assert other[number].turns == own[number].turns
        assert len(other[number].images) == len(own[number].images)
        assert {image.key for image in other[number].images}.isdisjoint(image.key for image in own[number].images)


def test_without_images_the_questions_are_the_same():
    own, none = (DemoQuestions(scenes=16, rounds=1, shown=shown) for shown in ("own", "none"))
    assert [*none.images()] == []
    for number in range(16):
        assert none[number].images == ()
        assert [turn.text for turn in none[number].turns] == [
            turn.text.replace("<image>\n", "") for turn in own[number].turns
        ]


def test_words_say_what_is_in_the_images():
    shown, words = (DemoQuestions(split="scenes", scenes=160, shown=shown) for shown in ("own", "words"))
    assert [*words.images()] == []
    for number in range(160):
        own, written = shown[number], words[number]
        assert written.images == ()
        assert written.turns[1] == own.turns[1]
        description, question = written.turns[0].text.split("\n")
        assert question == own.turns[0].text.rpartition("\n")[2]
        sentences = re.findall(r"(in the (?:first|second) image )?([^.]+)\.(?: |$)", description)
        assert len(sentences) == len(own.images)
        for image, (_, facts) in zip(own.images, sentences, strict=True):
            *things, mark = facts.strip().split(", ")
            assert mark == f"the small shape is {image.scene.mark.colour}"
            said = Counter(re.fullmatch(r"the ([a-z ]+) is at the ([a-z ]+)", fact).groups() for fact in things)
            assert said == Counter(
                (p.thing.name if p.thing.asked else p.thing.category, PLACES[image.scene.cell(p)])
                for p in image.scene.drawings
            )


def test_sentences_have_no_images_and_other_scenes():
    sentences = instantiate(plain(compose("data=sentences"))["data"])
    assert len(sentences) == 40000
    assert list(sentences.held_out(80)) == ["scenes", "drawings"]
    texts = {sentences[number].turns[0].text for number in range(0, 40000, 200)}
    assert len(texts) == 200
    ids = {sentences[number].id for number in range(0, 400)}
    assert ids.isdisjoint(sample.id for sample in trained()[:400])


@pytest.mark.parametrize("size", [128, 256])
def test_images_have_their_size_and_a_mark_its_pixels(size):
    for mark in (4, 8):
        dataset = DemoQuestions(split="scenes", scenes=6, size=size, mark=mark, kinds=("mark",))
        for number in range(6):
            scene = dataset[number].images[0].scene
            pixels = np.asarray(dataset[number].images[0].open())
            assert pixels.shape == (size, size, 3)
            at = scene.mark
            inside = pixels[at.top + 1 : at.top + mark - 1, at.left + 1 : at.left + mark - 1]
            assert inside.shape[:2] == (mark - 2, mark - 2)
            assert len(np.unique(inside.reshape(-1, 3), axis=0)) == 1
            assert any(abs(p.x - at.left) < p.side / 2 and abs(p.y - at.top) < p.side / 2 for p in scene.drawings)


@pytest.mark.parametrize(("least", "most"), [(1, 2), (9, 9)])
def test_scenes_have_as_many_drawings_as_was_asked(least, most):
    dataset = DemoQuestions(scenes=160, rounds=1, min_drawings=least, max_drawings=most, distractors=3)
    scenes = [image.scene for number in range(160) for image in dataset[number].images]
    assert {len(scene.drawings) for scene in scenes} == set(range(least, most + 1))
    assert {len(scene.shapes) for scene in scenes} == {3}
    assert ("two_steps" in dataset.kinds) == (most > 2)


def test_kinds_follow_the_knobs():
    assert DemoQuestions(ask_about="one").kinds == tuple(ABOUT_ONE)
    assert DemoQuestions(ask_about="all").kinds == tuple(ABOUT_ALL)
    assert "changed" not in DemoQuestions(images=1).kinds
    assert "mark" not in DemoQuestions(mark=0).kinds
    with_digits = DemoQuestions(handwriting=True)
    assert with_digits.kinds == (*ASK, "digits")
    splits = with_digits.held_out(90)
    assert {split: "digits" in dataset.kinds for split, dataset in splits.items()} == {
        "scenes": True,
        "drawings": True,
        "style": False,
    }
    assert splits["drawings"][8].images[0].scene.digits


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"kinds": ("colour",)}, r"kinds \(colour\) must be among name, where, .*changed with these knobs"),
        ({"kinds": ("changed",), "images": 1}, r"kinds \(changed\) must be among"),
        ({"min_drawings": 5, "max_drawings": 4}, r"min_drawings \(5\) and max_drawings \(4\) must lie between 1 and 9"),
        ({"mark": 3}, r"mark \(3\) must be 4 to 8 pixels"),
        ({"split": "writing"}, r"split \(writing\) must be one of train"),
        ({"shown": "shuffled", "scenes": 9}, r"scenes \(9\) must be 16 or more for shown=shuffled"),
        ({"ask_about": "all", "images": 1, "max_drawings": 2, "min_drawings": 1}, "allow no kind of question"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        DemoQuestions(**knobs)


def test_numbers_beyond_the_end_are_refused():
    with pytest.raises(IndexError, match=r"sample \(10\) must lie between 0 and 9"):
        DemoQuestions(scenes=5, rounds=2)[10]
