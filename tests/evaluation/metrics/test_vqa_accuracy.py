"""Soft accuracy over ten answers, in both normalisations, beside what LLaVA's scorer says."""

import pytest

from mmrnn.evaluation.metrics.items import TextItem
from mmrnn.evaluation.metrics.vqa_accuracy import vqa_accuracy
from mmrnn.evaluation.metrics.vqa_normalise import normalise_m4c


@pytest.mark.golden
def test_texts_are_normalised_as_by_llava(golden):
    cases = golden("metrics")[0]["normal"]
    assert len(cases) > 20
    assert {one["text"]: normalise_m4c(one["text"]) for one in cases} == {one["text"]: one["normal"] for one in cases}


@pytest.mark.golden
def test_replies_are_scored_as_by_llava(golden):
    case = golden("metrics")[0]
    items = [TextItem(id=str(n), reply=one["reply"], truths=tuple(one["answers"])) for n, one in enumerate(case["vqa"])]
    found = vqa_accuracy(items)
    assert len(items) > 100
    for item, one in zip(items, case["vqa"], strict=True):
        assert found.by_id[item.id] == pytest.approx(one["score"], abs=1e-9), one
    assert found.summary["accuracy"] == pytest.approx(case["vqa_mean"], abs=1e-9)


def score(reply, answers, **options):
    return vqa_accuracy([TextItem(id="1", reply=reply, truths=tuple(answers))], **options).by_id["1"]


@pytest.mark.parametrize(("count", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_the_score_by_the_number_of_people_who_agree(count, expected):
    answers = ["dog"] * count + [f"word {n}" for n in range(10 - count)]
    for normalisation in ("m4c", "official"):
        assert score("dog", answers, normalisation=normalisation) == pytest.approx(expected)


def test_the_official_normalisation_leaves_unanimous_answers_as_they_are():
    assert score("The dog.", ["dog"] * 10, normalisation="m4c") == 1.0
    assert score("The dog.", ["dog"] * 10, normalisation="official") == 0.0
    assert score("dog\n", ["dog "] * 10, normalisation="official") == 1.0
    assert score("The dog.", ["dog"] * 9 + ["cat"], normalisation="official") == 1.0


def test_the_normalisations_differ_in_genitives_and_commas():
    answers = ["men 's"] * 9 + ["women's"]
    assert (score("men's", answers, normalisation="m4c"), score("men's", answers, normalisation="official")) == (
        1.0,
        0.0,
    )
    answers = ["left,right"] * 9 + ["left"]
    assert score("leftright", answers, normalisation="m4c") == 1.0
    assert score("leftright", answers, normalisation="official") == 0.0
    assert score("left right", answers, normalisation="official") == 1.0
    assert score("1000-x", ["1,000-x"] * 9 + ["1"], normalisation="official") == 0.0
    assert score("1000x", ["1,000-x"] * 9 + ["1"], normalisation="official") == 1.0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("oclock", "o'clock"),
        ("twas", "'twas"),
        # Words of their own stay.
        ("well", "well"),
        ("shed", "shed"),
        ("its", "its"),
        ("none", "0"),
    ],
)
def test_contractions_and_numbers(text, normal):
    assert normalise_m4c(text) == normal
