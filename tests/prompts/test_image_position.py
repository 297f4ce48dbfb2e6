"""Images among words."""

import pytest

from mmrnn.prompts.image_position import SHORT_ANSWER, place_images


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("first", "<image>\nWhat?"),
        ("last", "What?\n<image>"),
        ("sandwich", "What?\n<image>\nWhat?"),
        ("inline", " What? <image>"),
    ],
)
def test_one_image(image, text):
    assert place_images([" What? <image>"], 1, image) == [text]


def test_the_sandwich_asks_everything_first_and_the_short_answer_once():
    texts = [f"<image>\nWho?\n{SHORT_ANSWER}", "Where?", f"When?\n{SHORT_ANSWER}"]
    assert place_images(texts, 1, "sandwich") == [
        f"Who?\nWhere?\nWhen?\n{SHORT_ANSWER}\n<image>\nWho?\n{SHORT_ANSWER}",
        *texts[1:],
    ]


def test_several_images_keep_their_number_and_their_turns():
    texts = ["Compare <image> with <image>.", "Fine.", "And <image>?"]
    assert place_images(texts, 3, "first") == ["<image>\n<image>\nCompare  with .", "Fine.", "<image>\nAnd ?"]
    assert place_images(texts, 3, "last") == ["Compare  with .\n<image>\n<image>", "Fine.", "And ?\n<image>"]
    assert place_images(texts, 3, "inline") == texts
    first, second, third = place_images(texts, 3, "sandwich")
    assert first == "Compare  with .\nFine.\nAnd ?\n<image>\n<image>\nCompare  with ."
    assert (second, third) == ("Fine.", "And ?\n<image>\nAnd ?")


@pytest.mark.parametrize("image", ["first", "last", "sandwich", "inline"])
def test_one_image_tagged_twice_in_a_turn_is_shown_once(image):
    assert place_images(["<image> a <image> b"], 1, image)[0].count("<image>") == 1


@pytest.mark.parametrize("image", ["first", "last", "sandwich"])
def test_a_turn_of_nothing_but_a_image(image):
    assert place_images(["<image>\n"], 1, image) == ["<image>"]


@pytest.mark.parametrize("image", ["first", "last", "sandwich", "inline"])
def test_without_images_a_tag_is_text_and_without_tag_one_image_is_not_shown(image):
    assert place_images(["<image>\nWhat?", "<image>"], 0, image) == ["<image>\nWhat?", "<image>"]
    assert place_images([" What? "], 1, image) == [" What? "]


def test_the_gap_is_a_choice():
    assert place_images(["What? <image>"], 1, "first", " ") == ["<image> What?"]


@pytest.mark.parametrize(
    ("texts", "images", "message"),
    [
        (["<image> a", "<image> b"], 1, "one image is tagged in 2 turns"),
        (["<image> a"], 2, "1 tags <image> for 2 images"),
        (["a"], 2, "0 tags <image> for 2 images"),
        (["<image> <image> a", "<image>"], 2, "3 tags <image> for 2 images"),
    ],
)
def test_tags_and_images_must_agree(texts, images, message):
    with pytest.raises(ValueError, match=message):
        place_images(texts, images, "first")
