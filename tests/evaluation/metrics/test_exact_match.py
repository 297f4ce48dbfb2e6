"""Exact match, as GQA counts it."""

import pytest

from mmrnn.evaluation.metrics.exact_match import exact_match
from mmrnn.evaluation.metrics.items import TextItem


@pytest.mark.parametrize(
    ("reply", "truths", "right"),
    [
        ("Dog.", ("dog",), True),
        (" dog\n", ("dog",), True),
        ("dog", ("cat", "Dog"), True),
        ("a dog", ("dog",), False),
        ("dog!", ("dog",), False),
        ("dogs", ("dog",), False),
        ("2.5", ("2.5",), True),
        ("", ("",), False),
        (".", ("",), False),
    ],
)
def test_what_counts_as_the_same(reply, truths, right):
    assert exact_match([TextItem(id="1", reply=reply, truths=truths)]).by_id == {"1": float(right)}


def test_the_summary_is_the_mean_over_all_questions():
    items = [TextItem(id=str(n), reply=reply, truths=("dog",)) for n, reply in enumerate(("dog", "", "cat", "Dog."))]
    assert exact_match(items).summary == {"accuracy": 0.5}
