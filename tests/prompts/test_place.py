"""Pictures among words."""

import pytest

from mmrnn.prompts.place import SHORT, place


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("first", "<image>\nWhat?"),
        ("last", "What?\n<image>"),
        ("sandwich", "What?\n<image>\nWhat?"),
        ("inline", " What? <image>"),
    ],
)
def test_one_picture(image, text):
    assert place([" What? <image>"], 1, image) == [text]


def test_the_sandwich_asks_everything_first_and_the_short_answer_once():
    texts = [f"<image>\nWho?\n{SHORT}", "Where?", f"When?\n{SHORT}"]
    assert place(texts, 1, "sandwich") == [
        f"Who?\nWhere?\nWhen?\n{SHORT}\n<image>\nWho?\n{SHORT}",
        *texts[1:],
    ]


def test_several_pictures_keep_their_number_and_their_turns():
    texts = ["Compare <image> with <image>.", "Fine.", "And <image>?"]
    assert place(texts, 3, "first") == ["<image>\n<image>\nCompare  with .", "Fine.", "<image>\nAnd ?"]
    assert place(texts, 3, "last") == ["Compare  with .\n<image>\n<image>", "Fine.", "And ?\n<image>"]
    assert place(texts, 3, "inline") == texts
    first, second, third = place(texts, 3, "sandwich")
    assert first == "Compare  with .\nFine.\nAnd ?\n<image>\n<image>\nCompare  with ."
    assert (second, third) == ("Fine.", "And ?\n<image>\nAnd ?")


@pytest.mark.parametrize("image", ["first", "last", "sandwich", "inline"])
def test_one_picture_tagged_twice_in_a_turn_is_shown_once(image):
    assert place(["<image> a <image> b"], 1, image)[0].count("<image>") == 1


@pytest.mark.parametrize("image", ["first", "last", "sandwich"])
def test_a_turn_of_nothing_but_a_picture(image):
    assert place(["<image>\n"], 1, image) == ["<image>"]


@pytest.mark.parametrize("image", ["first", "last", "sandwich", "inline"])
def test_without_pictures_a_tag_is_text_and_without_tag_one_picture_is_not_shown(image):
    assert place(["<image>\nWhat?", "<image>"], 0, image) == ["<image>\nWhat?", "<image>"]
    assert place([" What? "], 1, image) == [" What? "]


def test_the_gap_is_a_choice():
    assert place(["What? <image>"], 1, "first", " ") == ["<image> What?"]


@pytest.mark.parametrize(
    ("texts", "pictures", "message"),
    [
        (["<image> a", "<image> b"], 1, "one picture is tagged in 2 turns"),
        (["<image> a"], 2, "1 tags <image> for 2 pictures"),
        (["a"], 2, "0 tags <image> for 2 pictures"),
        (["<image> <image> a", "<image>"], 2, "3 tags <image> for 2 pictures"),
    ],
)
def test_tags_and_pictures_must_agree(texts, pictures, message):
    with pytest.raises(ValueError, match=message):
        place(texts, pictures, "first")
