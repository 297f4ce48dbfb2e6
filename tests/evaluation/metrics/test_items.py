"""Every metric scores all questions, by id, and refuses what it cannot score."""

import re

import pytest

from mmrnn.evaluation.metrics.box_accuracy import box_accuracy
from mmrnn.evaluation.metrics.exact_match import exact_match
from mmrnn.evaluation.metrics.items import LONGEST_REPLY, BoxItem, TextItem
from mmrnn.evaluation.metrics.mme import mme
from mmrnn.evaluation.metrics.option_letter import option_letter
from mmrnn.evaluation.metrics.pope import pope
from mmrnn.evaluation.metrics.vqa_accuracy import vqa_accuracy


def text(id, reply, *truths, kind="existence", image="1"):
    return TextItem(id=id, reply=reply, truths=truths, kind=kind, image=image)


def box(id, reply, codec="llava"):
    return BoxItem(id=id, reply=reply, box=(0, 0, 50, 50), width=100, height=100, codec=codec)


METRICS = {
    "exact_match": (exact_match, lambda id, reply: text(id, reply, "yes"), "yes"),
    "vqa m4c": (vqa_accuracy, lambda id, reply: text(id, reply, *["yes"] * 10), "yes"),
    "vqa official": (
        lambda i: vqa_accuracy(i, normalisation="official"),
        lambda id, r: text(id, r, *["yes"] * 10),
        "yes",
    ),
    "option_letter": (option_letter, lambda id, reply: text(id, reply, "B"), "B"),
    "pope": (pope, lambda id, reply: text(id, reply, "yes"), "yes"),
    "mme": (mme, lambda id, reply: text(id, reply, "yes"), "yes"),
    "box": (box_accuracy, box, "[0.0, 0.0, 0.5, 0.5]"),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_reply_that_is_too_long_is_wrong_and_counted(name):
    metric, item, right = METRICS[name]
    filler = " " * (LONGEST_REPLY - len(right))
    found = metric([item("2", right), item("1", right + filler)])
    assert found.by_id == {"2": 1.0, "1": 0.0}
    assert list(found.by_id) == ["2", "1"]
    accuracy = found.summary["existence/accuracy" if name == "mme" else "accuracy"]
    assert accuracy == 0.5


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"pope"}))
def test_an_empty_reply_is_wrong_and_counted(name):
    metric, item, right = METRICS[name]
    assert metric([item("1", right), item("2", "")]).by_id == {"1": 1.0, "2": 0.0}


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_scored_is_refused(name):
    metric, item, right = METRICS[name]
    with pytest.raises(ValueError, match="question '1' is answered twice"):
        metric([item("1", right), item("1", right)])
    with pytest.raises(ValueError, match="no replies"):
        metric([])


@pytest.mark.parametrize(
    ("metric", "item", "message"),
    [
        (exact_match, text("7", "yes"), "question '7' has no reference"),
        (vqa_accuracy, text("7", "yes", "yes", "no"), "question '7' has 2 answers; VQA accuracy needs 10"),
        (option_letter, text("7", "A", "A", "B"), "question '7' has 2 references; this metric takes one"),
        (option_letter, text("7", "A", "dog"), "reference of question '7' is 'dog'; one of A, B, C, D, E fits"),
        (pope, text("7", "yes", "maybe"), "reference of question '7' is 'maybe'; one of yes, no fits"),
        (mme, text("7", "yes", "yes"), "image '1' of kind 'existence' has 1 questions; MME pairs two"),
        (mme, text("7", "yes", "yes", kind="taste"), "question '7' is of kind 'taste'; MME has existence, "),
        (
            lambda i: vqa_accuracy(i, normalisation="mine"),
            text("7", "yes", *"1234567890"),
            "normalisation='mine' is unknown",
        ),
        (
            box_accuracy,
            BoxItem(id="7", reply="", box=(3, 0, 3, 9), width=9, height=9, codec="llava"),
            "reference of question '7' is a box without area: (3, 0, 3, 9)",
        ),
    ],
)
def test_faults_are_named(metric, item, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        metric([item])


def test_an_unknown_codec_is_named():
    with pytest.raises(ValueError, match="codec='mine' of question '7' is unknown; one of minigptv2, "):
        box_accuracy([box("7", "", "mine")])
