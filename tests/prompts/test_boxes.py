"""Boxes in the words of each design, beside what the original projects write and read."""

import random

import pytest

from mmrnn.prompts import boxes

WIDTH, HEIGHT = 640, 480


def some_boxes(count=50):
    draw = random.Random(0)
    for _ in range(count):
        x, y = (sorted(draw.uniform(0, side) for _ in range(2)) for side in (WIDTH, HEIGHT))
        yield x[0], y[0], x[1], y[1]


@pytest.mark.parametrize(
    ("write", "read", "bins"),
    [
        (boxes.format_minigptv2, lambda text: boxes.parse_minigptv2(text, WIDTH, HEIGHT)[0].box, 100),
        (
            lambda *a: boxes.format_cogvlm([a[0]], *a[1:]),
            lambda text: boxes.parse_cogvlm(text, WIDTH, HEIGHT)[0][0],
            1000,
        ),
        (lambda *a: boxes.format_qwen_vl("it", *a), lambda text: boxes.parse_qwen_vl(text, WIDTH, HEIGHT)[0].box, 1000),
    ],
)
def test_round_trips_lose_less_than_a_bin(write, read, bins):
    for box in some_boxes():
        found = read(write(box, WIDTH, HEIGHT))
        for value, other, side in zip(box, found, (WIDTH, HEIGHT) * 2, strict=True):
            assert 0 <= value - other < side / bins + 1e-9


def test_llava_rounds_in_the_padded_square():
    for box in some_boxes():
        [found] = boxes.parse_llava(f"it is at {boxes.format_llava(box, WIDTH, HEIGHT)}.", WIDTH, HEIGHT)
        assert max(abs(a - b) for a, b in zip(box, found, strict=True)) <= 640 / 200 + 1e-9
    assert boxes.format_llava((0, 0, 640, 480), 640, 480) == "[0.00, 0.12, 1.00, 0.88]"
    assert boxes.parse_llava("[1, 2, 3]", 4, 4) == []


@pytest.mark.golden
def test_minigpt(golden):
    case = golden("minigptv2")[0]
    for one in case["box_encoding"]:
        x, y, w, h = one["box_xywh"]
        assert boxes.format_minigptv2((x, y, x + w, y + h), *one["image_width_height"]) == one["text"]
    for one in case["box_parsing_demo"]:
        found: dict[str, list] = {}
        for phrase, box in boxes.parse_minigptv2(one["text"], 1, 1):
            found.setdefault(phrase, []).append(list(box))
        assert found == one["entities"], one["text"]
    for one in case["refer_decoding"]:
        box = boxes.parse_minigptv2_refer(one["text"], *one["image_width_height"])
        assert (box is not None) == one["accepted"]
        assert box is None or box == pytest.approx(one["box_x1y1x2y2"])


@pytest.mark.golden
def test_minigpt_answers_count_as_in_its_evaluation(golden):
    answers = golden("minigpt_refer")[0]["answers"]
    assert len(answers) == 20
    for one in answers:
        box = boxes.parse_minigptv2_refer(one["text"], one["width"], one["height"])
        assert (box is None) == (one["box"] is None), one["text"]
        assert box is None or box == pytest.approx(one["box"], abs=1e-9)


@pytest.mark.parametrize("text", ["{<10><20><60><90>} is it.", "<unk>{ <1 0> <20><60><90>}</s>", "{<10><20><60><90>}."])
def test_words_blanks_and_unk_around_a_minigpt_box(text):
    assert boxes.parse_minigptv2_refer(text, 100, 100) == (10, 20, 60, 90)


@pytest.mark.parametrize("text", ["{<10><20><60><90>} 2 mugs", "it is {<10><20><60><90>}", "{<1><2><3>}", ""])
def test_no_minigpt_box(text):
    assert boxes.parse_minigptv2_refer(text, 100, 100) is None


@pytest.mark.golden
def test_cogvlm(golden):
    for one in golden("cogvlm_expert")[0]["box_decoding"]:
        found = boxes.parse_cogvlm(one["text"], 1, 1)
        assert [[list(box) for box in group] for group in found] == [g["boxes_as_fractions"] for g in one["box_groups"]]


@pytest.mark.golden
def test_fuyu(golden):
    case = golden("fuyu_hf")[0]
    for one in case["coordinate_encoding"]:
        if one["kind"].startswith("box"):
            top, left, bottom, right = one["pixels"]
            assert boxes.format_fuyu((left, top, right, bottom), one["image_scale_factor"]) == one["tokens"]
    for one in case["coordinate_decoding"]:
        if len(one["number_tokens"]) == 4:
            height, width = one["image_height_width"]
            left, top, right, bottom = boxes.parse_fuyu(one["number_tokens"], width, height)
            assert one["decoded"] == f"<box>{top}, {left}, {bottom}, {right}</box>"


def test_qwen_reads_phrases_and_the_divisor():
    text = "A <ref>red mug</ref><box>(120,33),(455,870)</box> and <box>(0,0),(999,999)</box>, <box>(1,2)</box>."
    assert boxes.parse_qwen_vl(text, 1000, 1000) == [
        ("red mug", (120.0, 33.0, 455.0, 870.0)),
        ("", (0.0, 0.0, 999.0, 999.0)),
    ]
    assert boxes.parse_qwen_vl(text, 999, 999, divisor=999)[1].box == (0, 0, 999, 999)


def test_a_power_in_an_answer_is_no_number():
    """`²` is a digit for Python, and no number for `int`."""
    assert boxes.parse_cogvlm("[[001,002,003,00²]] [[010,020,030,040]]", 100, 100) == [[], [(1.0, 2.0, 3.0, 4.0)]]


ALL = {
    "minigptv2": ("<p>a</p> {<0><0><50><50>}<delim>{<50><50><100><100>}", [("a", 50), ("a", 100)]),
    "cogvlm": ("two: [[000,000,500,500;500,500,999,999]]", [("", 50), ("", 99.9)]),
    "qwen_vl": ("<ref>a</ref><box>(0,0),(500,500)</box> and <box>(1,1),(1000,1000)</box>", [("a", 50), ("", 100)]),
    "llava": ("[0.00, 0.00, 0.50, 0.50] and [0.50, 0.50, 1.00, 1.00]", [("", 50), ("", 100)]),
}


@pytest.mark.parametrize("name", boxes.CODECS)
def test_all_boxes_of_a_reply_are_read(name):
    text, expected = ALL[name]
    found = boxes.CODECS[name].parse_all(text, 100, 100)
    assert [(phrase, pytest.approx(box[2])) for phrase, box in found] == expected
    assert boxes.CODECS[name].parse_all("no box", 100, 100) == []


@pytest.mark.parametrize("text", ["(0,0),(999,999)", "(0,0),(999,999)</box>"])
def test_a_box_behind_the_tag_of_the_prompt_is_read(text):
    [(phrase, box)] = boxes.CODECS["qwen_vl"].parse_all(text, 100, 100)
    assert (phrase, box) == ("", (0, 0, 100, 100))
