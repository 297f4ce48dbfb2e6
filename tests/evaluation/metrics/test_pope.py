"""POPE by LLaVA's rule: per category, the mean F1, and pairs by id."""

import random

import pytest

from mmrnn.evaluation.metrics.items import TextItem
from mmrnn.evaluation.metrics.pope import pope, read_pope


@pytest.mark.golden
def test_replies_are_read_as_by_llava(golden):
    cases = golden("metrics")[0]["pope"]
    assert {one["read"] for one in cases} == {"yes", "no"}
    for one in cases:
        assert read_pope(one["reply"]) == one["read"], one
        found = pope([TextItem(id="1", reply=one["reply"], truths=(one["label"],))])
        assert found.by_id == {"1": float(one["read"] == one["label"])}


@pytest.mark.golden
def test_counts_and_shares_are_those_of_llava_in_any_order(golden):
    case = golden("metrics")[0]
    items = [
        TextItem(id=str(n), reply=one["reply"], truths=(one["label"],), kind="random")
        for n, one in enumerate(case["pope_run"])
    ]
    first = pope(items)
    random.Random(0).shuffle(items)
    again = pope(items)
    assert first.by_id == again.by_id
    for found in (first, again):
        for name, value in case["pope_total"].items():
            assert found.summary[f"random/{name}"] == pytest.approx(value, abs=1e-9), name
            if name in ("f1", "accuracy", "yes_share"):
                assert found.summary[name] == pytest.approx(value, abs=1e-9), name


def test_f1_is_the_mean_over_categories_of_unlike_size():
    def items(kind, *pairs):
        return [
            TextItem(id=f"{kind} {n}", reply=reply, truths=(truth,), kind=kind)
            for n, (reply, truth) in enumerate(pairs)
        ]

    group = items("random", ("yes", "yes"), ("no", "no"), ("no", "no")) + items("popular", ("yes", "no"), ("no", "yes"))
    found = pope(group).summary
    assert (found["random/f1"], found["popular/f1"], found["f1"]) == (1.0, 0.0, 0.5)
    assert (found["accuracy"], found["yes_share"]) == (0.6, 0.4)


def test_a_reply_that_is_too_long_counts_as_the_wrong_one():
    long = "yes" + " " * 9_997
    found = pope([TextItem(id=truth, reply=long, truths=(truth,), kind="random") for truth in ("yes", "no")])
    assert [found.summary[f"random/{name}"] for name in ("tp", "fp", "tn", "fn")] == [0, 1, 0, 1]
