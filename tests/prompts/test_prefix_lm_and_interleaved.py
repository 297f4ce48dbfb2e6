"""Captions cut in two, and pages: what is read, and what is learnt."""

import pytest

from mmrnn.prompts import Interleaved, PrefixLM
from mmrnn.types import Span, Turn


def turns(*texts):
    return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


def written(spans):
    return "".join("*" if span.image else f"[{span.text}]" if span.target else span.text for span in spans)


CAPTIONS = ["a red wall", "two boats on a lake", "snow", "a man who reads a paper in the shade of a tree"]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_caption_is_cut_between_two_words(caption):
    spans = PrefixLM().spans(turns("<image>\nDescribe it.", caption), 1)
    assert spans[0] == Span(image=True)
    assert spans[-1].target
    assert not any(span.target for span in spans[:-1])
    assert spans[-2] == Span("</s>"), "what is given ends, too"
    assert " ".join(span.text for span in [*spans[1:-2], spans[-1]]) == f"{caption}</s>"
    assert spans == PrefixLM().spans(turns("<image> again", caption), 1)


def test_captions_are_cut_in_different_places():
    words = list("abcdefgh")
    captions = [" ".join(words[start:] + words[:start]) for start in range(8)]
    cuts = {len(PrefixLM().spans(turns("<image>", one), 1)[1].text.split()) for one in captions}
    assert len(cuts) > 3


def test_a_caption_to_be_generated_goes_on_from_the_users_words():
    assert written(PrefixLM().spans(turns("<image>\na photo of", ""), 1)) == "*a photo of</s>"
    assert written(PrefixLM().spans(turns("<image>"), 1)) == "*</s>"
    assert written(PrefixLM(end="#", prefix_end="").spans(turns("", "word"), 0)) == "[word#]"
    with pytest.raises(ValueError, match="4 turns are no caption"):
        PrefixLM().spans(turns("<image>", "a", "b", "c"), 1)


@pytest.mark.parametrize(
    ("texts", "images", "page"),
    [
        (("<image>", "A cat."), 1, "*[A cat.</s>]"),
        (
            ("It begins. <image> ", " Then this. ", "<image>", "And that."),
            2,
            "[It begins.]*[Then this.]*[And that.</s>]",
        ),
        (("<image><image>", "Two."), 2, "**[Two.</s>]"),
        (("Words alone,", "no image."), 0, "[Words alone, no image.</s>]"),
        (("Shown at the end", "of it", "<image>"), 1, "[Shown at the end of it]*[</s>]"),
        (("<image> tag is text", "here"), 0, "[<image> tag is text here</s>]"),
        (("A dog <image>", ""), 1, "A dog*"),
    ],
)
def test_pages(texts, images, page):
    assert written(Interleaved().spans(turns(*texts), images)) == page


def test_pages_want_a_tag_for_each_image():
    with pytest.raises(ValueError, match="1 tags <image> for 2 images"):
        Interleaved().spans(turns("<image>", "a"), 2)
