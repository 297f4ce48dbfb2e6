"""Option letters as LLaVA reads them for ScienceQA."""

import pytest

from mmrnn.evaluation.metrics.items import TextItem
from mmrnn.evaluation.metrics.option_letter import option_letter, read_letter


@pytest.mark.golden
def test_letters_are_read_as_by_llava(golden):
    cases = golden("metrics")[0]["scienceqa"]
    assert {"FAILED"} < {one["read"] for one in cases}
    for one in cases:
        assert (read_letter(one["reply"]) or "FAILED") == one["read"], one


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("A. dog", "A"),
        ("E. dog", "E"),
        ("F. dog", None),
        ("A.dog", None),
        ("So. The answer is B.", "B"),
        ("The answer is B. The answer is C.", None),
        ("", None),
        ("AB", None),
    ],
)
def test_the_forms_of_a_choice(reply, letter):
    assert read_letter(reply) == letter


def test_scores_and_unread_replies():
    replies = {"1": "B", "2": "A", "3": "a dog", "4": "B. dog", "5": "F"}
    found = option_letter([TextItem(id=key, reply=reply, truths=("B",)) for key, reply in replies.items()])
    assert found.by_id == {"1": 1.0, "2": 0.0, "3": 0.0, "4": 1.0, "5": 0.0}
    assert found.summary == {"accuracy": 0.4, "unread": 2}
    assert option_letter([TextItem(id="5", reply="F", truths=("F",))], letters="EFG").by_id == {"5": 1.0}


def test_the_letter_alone():
    replies = {"1": "B", "2": "B. dog", "3": "The answer is B.", "4": "b", "5": "B" * 10_000}
    items = [TextItem(id=key, reply=reply, truths=("B",)) for key, reply in replies.items()]
    assert [*option_letter(items, alone=True).by_id.values()] == [1, 0, 0, 0, 0]
    assert option_letter(items, alone=True).summary["unread"] == 4


def test_a_question_is_right_in_every_order_of_its_options():
    replies = {"7": "A", "1000007": "A", "2000007": "B", "8": "A", "1000008": "A", "3000009": "A"}
    items = [TextItem(id=key, reply=reply, truths=("A",), kind="ocr") for key, reply in replies.items()]
    found = option_letter(items, circular=True).summary
    assert (found["circular"], found["accuracy"], found["ocr/accuracy"]) == (2 / 3, 5 / 6, 5 / 6)
    assert "circular" not in option_letter(items).summary
    with pytest.raises(ValueError, match="id 'x' is no number: the orders of a question have one id modulo 1000000"):
        option_letter([TextItem(id="x", reply="A", truths=("A",))], circular=True)
