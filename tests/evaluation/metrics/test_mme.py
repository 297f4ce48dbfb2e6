"""MME: accuracy of questions, of images, and the sums over subtasks."""

import pytest

from mmrnn.evaluation.metrics.items import TextItem
from mmrnn.evaluation.metrics.mme import COGNITION, PERCEPTION, mme, read_mme


@pytest.mark.golden
def test_replies_are_read_as_by_lmms_eval(golden):
    cases = golden("metrics")[0]["mme"]
    assert {one["read"] for one in cases} == {"yes", "no", "other"}
    for one in cases:
        assert read_mme(one["reply"]) == one["read"], one
        for label in ("yes", "no"):
            pair = [TextItem(id=str(n), reply=one["reply"], truths=(label,), kind="OCR", image="1") for n in range(2)]
            assert mme(pair).by_id == dict.fromkeys("01", float(one["read"] == label))


def pair(kind, image, first, second):
    return [
        TextItem(id=f"{kind} {image} {truth}", reply=reply, truths=(truth,), kind=kind, image=image)
        for reply, truth in ((first, "yes"), (second, "no"))
    ]


def test_accuracy_plus_counts_images_with_both_questions_right():
    items = pair("color", "a", "Yes.", "No") + pair("color", "b", "yes", "yes") + pair("color", "c", "no", "other")
    found = mme(items[::2] + items[1::2])  # the two of an image need not follow each other
    assert found.summary["color/accuracy"] == pytest.approx(3 / 6)
    assert found.summary["color/accuracy_plus"] == pytest.approx(1 / 3)
    assert found.summary["color/score"] == pytest.approx(100 * (1 / 2 + 1 / 3))
    assert not {"perception", "cognition"} & set(found.summary)


def test_the_same_image_in_two_subtasks_is_two_pairs():
    found = mme(pair("color", "a", "yes", "no") + pair("count", "a", "no", "no")).summary
    assert (found["color/accuracy_plus"], found["count/accuracy_plus"]) == (1.0, 0.0)


def test_sums():
    whole = [item for kind in PERCEPTION + COGNITION for item in pair(kind, "a", "yes", "no")]
    found = mme(whole).summary
    assert (found["perception"], found["cognition"]) == (2000.0, 800.0)
    some = mme([item for item in whole if item.kind != "OCR"]).summary
    assert some["cognition"] == 800.0
    assert "perception" not in some
