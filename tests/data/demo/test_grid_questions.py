"""Answers are derived a second time, from the places of the drawings in pixels and the words of the question."""

import re
from collections import Counter
from functools import cache
from random import Random

import pytest

from mmrnn.data import DemoQuestions
from mmrnn.data.demo.drawings import CATEGORY_RANGES
from mmrnn.data.demo.grid_dataset import SPLITS
from mmrnn.data.demo.grid_questions import ASK, WORDINGS, ask_grid
from mmrnn.tokenizers import DemoTokenizer

NUMBERS = ("none", "one", "two", "three")
WAYS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
KNOBS = ({}, {"min_drawings": 7, "max_drawings": 9, "distractors": 5}, {"size": 256, "mark": 4})


@cache
def asked(kind: str) -> list:
    """Scenes, question and answer, of every split and of several settings."""
    datasets = [
        DemoQuestions(split=s, scenes=100, rounds=1, turns=1, kinds=(kind,), **k) for s in SPLITS for k in KNOBS
    ]
    samples = [dataset[number] for dataset in datasets for number in range(100)]
    return [
        ([image.scene for image in s.images], s.turns[0].text.rpartition("<image>\n")[2], s.turns[1].text)
        for s in samples
    ]


def only(found: list):
    """The one element."""
    assert len(found) == 1
    return found[0]


def called(scene, words: str):
    """The one drawing that some words mean."""
    return only([p for p in scene.drawings if words in (p.thing.name, p.thing.category)])


def next_to(scene, placed, way: str):
    """The nearest drawing in a direction, in the same row or column, and not further than the next place."""
    right, down = WAYS[way]
    ahead = {}
    for other in scene.drawings:
        x, y = (other.x - placed.x) / scene.size, (other.y - placed.y) / scene.size
        along, across = x * right + y * down, abs(x * down) + abs(y * right)
        if 0.2 < along < 0.47 and across < 0.14:
            ahead[along] = other
    return only([*ahead.values()])


def agrees(text: str, thing, answer: str) -> bool:
    """True for the name of a drawing that may be named, or its category if the question asks for it."""
    return answer == thing.category if "kind of thing" in text else thing.asked and answer == thing.name


def test_names_are_those_at_the_place():
    for [scene], text, answer in asked("name"):
        place = re.search(r"at the ([a-z ]+)\?", text)[1]
        column = 0 if "left" in place else 2 if "right" in place else 1
        row = 0 if "top" in place else 2 if "bottom" in place else 1
        there = only([p for p in scene.drawings if (p.x * 3 // scene.size, p.y * 3 // scene.size) == (column, row)])
        assert agrees(text, there.thing, answer)


def test_places_are_those_of_the_drawing():
    seen = Counter()
    for [scene], text, answer in asked("where"):
        placed = called(scene, re.search(r"the ([a-z ]+)\?", text)[1])
        across = ("left", "middle", "right")[int(placed.x * 3 // scene.size)]
        down = ("top", "middle", "bottom")[int(placed.y * 3 // scene.size)]
        assert answer == ("middle" if across == down else f"{down} {across}")
        seen[answer] += 1
    assert len(seen) == 9
    assert max(seen.values()) < 0.2 * seen.total()


def test_neighbours_are_beside():
    for [scene], text, answer in asked("beside"):
        way, one = re.search(r"directly (left of|right of|above|below) the ([a-z ]+)\?", text).groups()
        assert agrees(text, next_to(scene, called(scene, one), way).thing, answer)


def test_two_steps_lead_to_another_thing():
    ways = "(left of|right of|above|below)"
    for [scene], text, answer in asked("two_steps"):
        way, first, one = re.search(rf"directly {ways} the thing directly {ways} the ([a-z ]+)\?", text).groups()
        start = called(scene, one)
        end = next_to(scene, next_to(scene, start, first), way)
        assert end != start
        assert agrees(text, end.thing, answer)


def test_the_mark_has_its_colour():
    pixels = {"red": (220, 30, 30), "green": (20, 140, 50), "blue": (30, 60, 220), "black": (0, 0, 0)}
    pixels |= {"yellow": (255, 230, 0), "white": (255, 255, 255)}
    for [scene], _, answer in asked("mark")[::10]:
        middle = (scene.mark.left + scene.mark.side // 2, scene.mark.top + scene.mark.side // 2)
        assert scene.render().getpixel(middle) == pixels[answer]


def test_counts_are_those_of_the_scene():
    for [scene], text, answer in asked("count_of"):
        category = only([name for name in CATEGORY_RANGES if re.search(rf"\b{name}s?\b", text)])
        assert NUMBERS.index(answer) == sum(p.thing.category == category for p in scene.drawings)


def test_there_are_most_of_one_category():
    for [scene], _, answer in asked("most"):
        counts = Counter(p.thing.category for p in scene.drawings)
        assert all(counts[answer] > count for category, count in counts.items() if category != answer)
        assert len(counts) > 1


def test_one_thing_changes():
    for (first, second), text, answer in asked("changed"):
        here, there = (first, second) if "in the first image but" in text else (second, first)
        chars = {p.thing.char for p in there.drawings}
        assert len(first.drawings) == len(second.drawings)
        gone = only([p.thing for p in here.drawings if p.thing.char not in chars])
        assert agrees(text, gone, answer)
        assert answer not in {words for p in there.drawings for words in (p.thing.name, p.thing.category)}


@pytest.mark.parametrize("kind", ASK)
def test_a_question_has_one_answer(kind):
    """Asked again and again about the same scenes, the same words have the same answer."""
    repeated = Counter()
    for scenes, _, _ in asked(kind)[::40]:
        answers = {}
        for seed in range(60):
            if question := ask_grid(kind, scenes, Random(seed)):
                assert answers.setdefault(question.text, question.answer) == question.answer
                repeated[question.text] += 1
    assert max(repeated.values()) > 1


@pytest.mark.parametrize("kind", ASK)
def test_every_wording_is_used_and_short(kind):
    forms = ("gone", "new") if kind == "changed" else (kind,)
    texts = [text for _, text, _ in asked(kind)]
    for wording in [wording for form in forms for wording in WORDINGS[form]]:
        pattern = re.sub(r"\\{\w+\\}", "[a-z ]+", re.escape(wording))
        assert any(re.fullmatch(pattern, text) for text in texts), wording
    encode = DemoTokenizer().encode
    assert max(len(encode(text)) for text in texts) <= 24
    assert max(len(encode(f" {answer}")) for _, _, answer in asked(kind)) <= 4
