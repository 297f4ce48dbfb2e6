"""Replies are compared as people would, and counted by kind."""

import pytest

from mmrnn.evaluation.accuracy import Answer, Score, last_question, last_reply, mean, normalise_answer, scores
from mmrnn.evaluation.reports.svg import bars, chart
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


def test_the_last_last_question_a_sample():
    first = (Turn("user", "<image>\nhow many?"), Turn("assistant", "two"))
    turns = (*first, Turn("user", "what?"), Turn("assistant", "fox"))
    sample = Sample(turns)
    assert (last_question(sample), last_reply(sample)) == ("what?", "fox")
    assert last_question(Sample(turns[:2])) == "how many?"


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
