"""Captions cut in two, and pages: what is read, and what is learnt."""

import pytest

from mmrnn.data import Turn
from mmrnn.prompts import Halves, Pages, Piece


def turns(*texts):
    return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


def written(pieces):
    return "".join("*" if piece.picture else f"[{piece.text}]" if piece.target else piece.text for piece in pieces)


CAPTIONS = ["a red wall", "two boats on a lake", "snow", "a man who reads a paper in the shade of a tree"]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_caption_is_cut_between_two_words(caption):
    pieces = Halves().pieces(turns("<image>\nDescribe it.", caption), 1)
    assert pieces[0] == Piece(picture=True)
    assert pieces[-1].target
    assert not any(piece.target for piece in pieces[:-1])
    text = "".join(piece.text for piece in pieces)
    assert text == f"{caption}</s>"
    assert pieces == Halves().pieces(turns("<image> again", caption), 1)


def test_captions_are_cut_in_different_places():
    words = list("abcdefgh")
    captions = [" ".join(words[start:] + words[:start]) for start in range(8)]
    cuts = {len(Halves().pieces(turns("<image>", one), 1)[1].text.split()) for one in captions}
    assert len(cuts) > 3


def test_a_caption_to_be_generated_goes_on_from_the_users_words():
    assert written(Halves().pieces(turns("<image>\na photo of", ""), 1)) == "*a photo of"
    assert written(Halves().pieces(turns("<image>"), 1)) == "*"
    assert written(Halves(end="#").pieces(turns("", "word"), 0)) == "[word#]"
    with pytest.raises(ValueError, match="4 turns are no caption"):
        Halves().pieces(turns("<image>", "a", "b", "c"), 1)


@pytest.mark.parametrize(
    ("texts", "pictures", "page"),
    [
        (("<image>", "A cat."), 1, "*[A cat.</s>]"),
        (
            ("It begins. <image> ", " Then this. ", "<image>", "And that."),
            2,
            "[It begins.]*[Then this.]*[And that.</s>]",
        ),
        (("<image><image>", "Two."), 2, "**[Two.</s>]"),
        (("Words alone,", "no picture."), 0, "[Words alone, no picture.</s>]"),
        (("Shown at the end", "of it", "<image>"), 1, "[Shown at the end of it]*[</s>]"),
        (("<image> tag is text", "here"), 0, "[<image> tag is text here</s>]"),
        (("A dog <image>", ""), 1, "A dog*"),
    ],
)
def test_pages(texts, pictures, page):
    assert written(Pages().pieces(turns(*texts), pictures)) == page


def test_pages_want_a_tag_for_each_picture():
    with pytest.raises(ValueError, match="1 tags <image> for 2 pictures"):
        Pages().pieces(turns("<image>", "a"), 2)
