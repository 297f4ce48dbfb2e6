import re
from collections import Counter
from random import Random

import pytest

from mmrnn.data import DemoVQA
from mmrnn.data.demo.dataset import SPLITS
from mmrnn.data.demo.drawings import CATEGORY_RANGES
from mmrnn.data.demo.questions import KINDS, WORDINGS, ask, vocabulary

NUMBERS = {"none": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
WAYS = {"left": ("x", -1), "right": ("x", 1), "up": ("y", -1), "down": ("y", 1)}


def asked(*kinds: str, number: int = 400):
    """Scene, question and answer of samples of those kinds, from every split that asks them."""
    for split, answerable in SPLITS.items():
        chosen = tuple(kind for kind in kinds if kind in answerable)
        if chosen:
            dataset = DemoVQA(split=split, scenes=number, rounds=1, turns=1, kinds=chosen)
            for index in range(number):
                sample = dataset[index]
                text = sample.turns[0].text.removeprefix("<image>\n")
                yield sample.images[0].scene, text, sample.turns[1].text


def called(scene, words: str):
    """The drawings that some words may mean."""
    return [placed for placed in scene.drawings if words in (placed.thing.name, placed.thing.category)]


def pointed(scene, text: str):
    """The one drawing that a question points at, found by eye: the image cut at its middle, or its extremes."""
    if "in the image" in text:
        [placed] = scene.drawings
        return placed
    if match := re.search(r"at the (top|bottom) (left|right)", text):
        down, right = match[1] == "bottom", match[2] == "right"
        middle = scene.size / 2
        # What stands on a middle line belongs to no corner.
        apart = [p for p in scene.drawings if min(abs(p.x - middle), abs(p.y - middle)) > 0.025 * scene.size]
        [placed] = [p for p in apart if (p.y > middle, p.x > middle) == (down, right)]
        return placed
    axis, sign = WAYS[{"top": "up", "bottom": "down"}.get(way := text.strip("?.").split()[-1], way)]
    return max(scene.drawings, key=lambda placed: sign * getattr(placed, axis))


def test_counts_are_those_of_the_scene():
    for scene, _, answer in asked("count"):
        assert NUMBERS[answer] == len(scene.drawings)


def test_counts_of_a_category_are_those_of_the_scene():
    for scene, text, answer in asked("count_of"):
        [category] = [name for name in CATEGORY_RANGES if re.search(rf"\b{name}s?\b", text.removeprefix("count the"))]
        assert NUMBERS[answer] == sum(placed.thing.category == category for placed in scene.drawings)


@pytest.mark.parametrize("kind", ["name", "category", "colour"])
def test_what_is_pointed_at_is_what_is_meant(kind):
    for scene, text, answer in asked(kind):
        assert getattr(pointed(scene, text).thing, kind) == answer


def test_only_known_drawings_are_asked_by_name():
    assert all(pointed(scene, text).thing.asked for scene, text, _ in asked("name"))


def test_corners_are_true_and_clear():
    for scene, text, answer in asked("position"):
        if match := re.fullmatch(r".*(?:where|corner)(?: is| do you see) the ([a-z ]+)\?", text):
            [placed] = called(scene, match[1])
            right, down = placed.x - scene.size / 2, placed.y - scene.size / 2
            assert answer == f"{'bottom' if down > 0 else 'top'} {'right' if right > 0 else 'left'}"
            assert min(abs(right), abs(down)) >= 0.05 * scene.size


def test_sides_are_true_and_clear():
    seen = Counter()
    for scene, text, answer in asked("position"):
        patterns = (
            r"where is the (?P<one>[a-z ]+), seen from the (?P<other>[a-z ]+)\?",
            r"on which side of the (?P<other>[a-z ]+) is the (?P<one>[a-z ]+)\?",
            r"is the (?P<one>[a-z ]+) left, right, above or below the (?P<other>[a-z ]+)\?",
        )
        if match := next(filter(None, (re.fullmatch(pattern, text) for pattern in patterns)), None):
            [one], [other] = called(scene, match["one"]), called(scene, match["other"])
            right, down = one.x - other.x, one.y - other.y
            assert max(abs(right), abs(down)) > 1.6 * min(abs(right), abs(down))
            across = "left" if right < 0 else "right"
            assert answer == (across if abs(right) > abs(down) else "above" if down < 0 else "below")
            seen[answer] += 1
    assert set(seen) == {"left", "right", "above", "below"}
    assert max(seen.values()) < 0.4 * seen.total()


def test_comparisons_are_true_and_clear():
    seen = Counter()
    for scene, text, answer in asked("position"):
        if match := re.search(r"further (left|right|up|down)", text):
            names = [
                label for label in re.findall(r"the ([a-z]+(?: [a-z]+)?)(?=[,?:]| or)", text) if called(scene, label)
            ]
            assert len(names) == 2
            axis, sign = WAYS[match[1]]
            ahead, behind = sorted(names, key=lambda name: -sign * getattr(called(scene, name)[0], axis))
            assert answer == ahead
            assert abs(getattr(called(scene, ahead)[0], axis) - getattr(called(scene, behind)[0], axis)) >= 12
            seen[names.index(answer)] += 1
    assert 0.4 < seen[0] / seen.total() < 0.6


def test_descriptions_say_everything_and_where_it_is():
    lengths = set()
    for scene, _, answer in asked("describe"):
        phrases = answer.split(", ")
        lengths.add(len(phrases))
        assert len(phrases) == len(scene.drawings)
        if len(phrases) == 1:
            [placed] = scene.drawings
            assert answer == (placed.thing.name if placed.thing.asked else placed.thing.category)
            continue
        ranks = []
        for words in phrases:
            place, label = re.fullmatch(
                r"(middle|top left|top right|bottom left|bottom right) ([a-z ]+)", words
            ).groups()
            ranks.append(("top left", "top right", "middle", "bottom left", "bottom right").index(place))
            x, y = (0.5 if place == "middle" else 0.25 + 0.5 * (way in place) for way in ("right", "bottom"))
            nearest = min(scene.drawings, key=lambda p: abs(p.x / scene.size - x) + abs(p.y / scene.size - y))
            assert label == (nearest.thing.name if nearest.thing.asked else nearest.thing.category)
        assert ranks == sorted(set(ranks))
    assert lengths == {1, 2, 3, 4, 5}


def test_same_is_about_the_same_drawing():
    for scene, _, answer in asked("same"):
        one, other = scene.drawings
        assert (answer == "yes") == (one.thing == other.thing)


def test_digits_are_read_from_left_to_right():
    for scene, _, answer in asked("digits"):
        assert answer.split() == [str(p.thing.value) for p in sorted(scene.placed, key=lambda placed: placed.x)]


def test_single_digits_are_counted_from_the_left():
    ranks = ("first", "second", "third", "fourth")
    for scene, text, answer in asked("digit"):
        [rank] = [rank for rank in ranks if rank in text]
        assert answer == str(scene.digits[ranks.index(rank)].thing.value)


def test_every_wording_is_used():
    rng, texts = Random(0), set()
    for split in ("train", "scenes"):
        dataset = DemoVQA(split=split, scenes=900, rounds=1)
        for index in range(900):
            scene = dataset[index].images[0].scene
            texts |= {question.text for kind in KINDS if (question := ask(kind, scene, rng))}
    for wordings in WORDINGS.values():
        for wording in wordings:
            pattern = re.sub(r"\\{\w+\\}", "[a-z ]+", re.escape(wording))
            assert any(re.fullmatch(pattern, text) for text in texts), wording


def test_words_are_few_and_known():
    known = set(vocabulary())
    assert len(known) < 250
    for _, text, answer in asked(*KINDS):
        assert set(re.findall(r"\w+|[^\w\s]", f"{text} {answer}")) <= known
        assert text == text.lower()
        assert 1 <= len(answer.split(", ")) <= 5
        assert all(1 <= len(part.split()) <= 4 for part in answer.split(", "))
