"""Every card of `conf/task/` reads the files of its benchmark as they are published, and scores replies by them."""

from functools import cache

import pytest

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import find_target, instantiate, parameters
from mmrnn.config.tree import cards, plain
from mmrnn.config.validate import card_faults
from mmrnn.evaluation.metrics.items import BoxItem, TextItem
from mmrnn.prompts import Template, boxes
from mmrnn.types import TAG
from tests.evaluation import java
from tests.evaluation.tasks import official_files

CARDS = sorted(path.stem for path in (conf_dir() / "task").glob("*.yaml"))
BEST = {"mme": 2000.0}
"""Highest value of `main` where it is not 1."""

CORPUS = {"coco_caption", "nocaps"}
"""Tasks whose highest value depends on the words of all references."""


OWN = {"files", "retrieval"}
"""Tasks of the user's own files."""

RETRIEVAL = [name for name in CARDS if name.endswith("retrieval")]
"""Tasks without replies."""


@cache
def card(name):
    return plain(compose(config=f"task/{name}"))["task"]


def asked(name, root, prompt=None):
    """The task and its questions, of files that are made here."""
    getattr(official_files, name)(root)
    task = instantiate(card(name))
    return task, task.questions(root, prompt or Template(boxes="llava"))


def item(question, reply):
    shared = {"id": question.id, "reply": reply, "kind": question.kind, "image": question.image}
    if question.box is None:
        return TextItem(**shared, truths=question.truths)
    return BoxItem(**shared, box=question.box, width=question.size[0], height=question.size[1], codec=question.codec)


def perfect(question):
    return boxes.format_llava(question.box, *question.size) if question.box else question.truths[0]


@pytest.mark.parametrize("name", CARDS)
def test_every_card_inside_fits_its_class_and_lists_every_knob(name):
    for path, inner in cards(card(name), "task"):
        wired = 1 if inner.get("_partial_") else 0
        assert [*card_faults(inner, path, None if wired else 0)] == []
        known = {one for one, what in parameters(find_target(inner)).items() if what.kind is what.KEYWORD_ONLY}
        assert known - set(inner) == set(), f"{path} leaves out knobs of its class"
    assert bool(card(name)["source"]) == (name not in OWN)


@pytest.mark.parametrize("name", CARDS)
def test_official_files(name, tmp_path):
    task, questions = asked(name, tmp_path)
    assert len(questions) > 1
    assert all(question.record["question_id"] not in (None, "") for question in questions)
    for question in questions:
        [turn, reply] = question.sample.turns
        assert (turn.role, reply.role, reply.text) == ("user", "assistant", "")
        assert turn.text.count(TAG) == len(question.sample.images)
        assert question.text.replace(TAG, "").strip() in turn.text.replace(TAG, "")
        assert turn.text.endswith(card(name).get("suffix", ""))
        assert all(image.open().size[1] > 1 for image in question.sample.images)
        assert bool(question.image) == bool(question.sample.images)
    if name in RETRIEVAL:
        assert all(question.truths for question in questions)
    elif task.metric is None:
        assert not any(question.truths or question.box for question in questions)


@pytest.mark.parametrize("name", sorted({*CARDS} - {*RETRIEVAL}))
def test_scores(name, tmp_path, monkeypatch):
    """References as replies reach the best score; other replies do not."""
    task, questions = asked(name, tmp_path)
    if task.metric is None:
        return
    java.put_in_place(tmp_path, monkeypatch)
    found = task.metric([item(question, perfect(question)) for question in questions])
    best = found.summary[task.main]
    assert name in CORPUS or best == pytest.approx(BEST.get(name, 1.0))
    assert set(found.by_id) == {question.id for question in questions}
    wrong = task.metric([item(question, "maybe not") for question in questions])
    assert wrong.summary[task.main] < best
