"""Replies are compared as people would, and counted by kind."""

import pytest

from mmrnn.data.image import ImageError, ImageFile
from mmrnn.evaluation.accuracy import (
    Answer,
    Score,
    evaluate,
    examination,
    mean,
    normalise_answer,
    question_of,
    scores,
    truth_of,
)
from mmrnn.evaluation.reports.svg import bars, chart
from mmrnn.inference.assistant import Assistant
from mmrnn.types.sample import Sample, Turn


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A fox.", "fox", True),
        ("the  Red  fox", "red fox", True),
        (" yes!", "Yes", True),
        ("four", "five", False),
        ("", "none", False),
        ("apple", "an apple", True),
        ("anapple", "apple", False),
    ],
)
def test_what_counts_as_the_same(one, other, same):
    assert (normalise_answer(one) == normalise_answer(other)) is same


def test_scores_by_kind():
    answers = [Answer("count", "?", "one", reply) for reply in ("one", "two", "One.")]
    answers.append(Answer("name", "?", "fox", ""))
    assert scores(answers) == {"count": Score(2, 3), "name": Score(0, 1)}
    assert mean(scores(answers)) == pytest.approx(1 / 3)
    assert mean({}) == 0.0


USER, REPLY = (lambda text: Turn("user", text)), (lambda text: Turn("assistant", text))
FIRST = (USER("<image>\nhow many?"), REPLY("two"))


@pytest.mark.parametrize(
    ("turns", "question", "truth"),
    [
        (FIRST, "how many?", "two"),
        ((*FIRST, USER("what?"), REPLY("fox")), "what?", "fox"),
        # Nobody answers the last question: the one before it is asked, and compared with its own reply.
        ((*FIRST, USER("what is <image>?")), "how many?", "two"),
        ((*FIRST, USER("a?"), USER("b?"), REPLY("c"), REPLY("d"), USER("e?")), "b?", "c"),
    ],
)
def test_a_question_is_compared_with_its_own_reply(turns, question, truth):
    tags = sum(turn.text.count("<image>") for turn in turns)
    sample = examination(Sample(turns, tuple(ImageFile(f"image {number}") for number in range(tags))))
    assert (question_of(sample), truth_of(sample)) == (question, truth)
    assert [image.key for image in sample.images] == ["image 0"]


def test_a_dialogue_without_a_reply_asks_nothing():
    assert examination(Sample((USER("what?"),))) is None
    assert examination(Sample((REPLY("a fox"),))) is None


class Echo(Assistant):
    """Replies the last question; the image `broken` cannot be opened."""

    def __init__(self):
        self.sizes = []

    def answer(self, samples, max_new_tokens):
        if any(sample.images[0].key == "broken" for sample in samples):
            raise ImageError("there is no such image")
        self.sizes.append(len(samples))
        return [sample.turns[-2].text for sample in samples]


def test_what_cannot_be_asked_is_left_out_and_counted():
    samples = [
        Sample((USER(f"{n}?"), REPLY(f"{n}?")), (ImageFile("broken" if n == 5 else "whole"),), id=f"s{n}")
        for n in range(16)
    ]
    samples[7] = Sample((USER("7?"),), id="s7")
    echo = Echo()
    answers, left_out = evaluate(echo, samples, batch_size=8)
    assert [answer.index for answer in answers] == [*range(5), 6, *range(8, 16)]
    assert all(answer.right and answer.question == f"{answer.index}?" for answer in answers)
    assert all((answer.id, answer.images) == (f"s{answer.index}", ("whole",)) for answer in answers)
    assert left_out.reasons == {"there is no reply to a question": (1, "s7"), "there is no such image": (1, "s5")}
    assert echo.sizes == [3, 2, 1, 8]  # seven of the first batch, halved down to the fault


def test_charts_are_drawn_to_scale_and_escape_names():
    drawn = chart("a < b", {"x": [(0, 0.0), (10, 1.0)], "none": []}, percent=True)
    assert "a &lt; b" in drawn
    assert drawn.count("<polyline") == 1
    (points,) = [part.split('"')[1] for part in drawn.split("<polyline ")[1:]]
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in points.split())
    assert x0 < x1
    assert y0 > y1
    assert chart("empty", {}) == ""
    widths = [float(part.split('"')[0]) for part in bars("shares", {"half": 0.5, "all": 1.0}).split('width="')[1:]]
    assert widths[0] * 2 == pytest.approx(widths[1])
