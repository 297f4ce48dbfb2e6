"""Grounding accuracy through each design's own form of boxes."""

import pytest

from mmrnn.evaluation.metrics.box_accuracy import box_accuracy
from mmrnn.evaluation.metrics.items import BoxItem
from mmrnn.prompts import boxes

WIDTH, HEIGHT = 640, 480
TRUTH = (100.0, 120.0, 300.0, 360.0)
WRITERS = {
    "minigptv2": lambda box: boxes.format_minigptv2(box, WIDTH, HEIGHT),
    "cogvlm": lambda box: f"the dog {boxes.format_cogvlm([box], WIDTH, HEIGHT)}",
    "qwen_vl": lambda box: boxes.format_qwen_vl("the dog", box, WIDTH, HEIGHT),
    "llava": lambda box: boxes.format_llava(box, WIDTH, HEIGHT),
}


def item(id, reply, codec, box=TRUTH, width=WIDTH, height=HEIGHT, kind=""):
    return BoxItem(id=id, reply=reply, box=box, width=width, height=height, codec=codec, kind=kind)


@pytest.mark.parametrize("codec", WRITERS)
def test_boxes_of_every_design(codec):
    write = WRITERS[codec]
    replies = {
        "same": write(TRUTH),
        "little beside": write((110, 125, 310, 365)),
        "far beside": write((300, 120, 500, 360)),
        "no area": write((100, 120, 100, 360)),
        "words": "there is no dog",
        "long number": "9" * 5000,
    }
    found = box_accuracy([item(key, reply, codec) for key, reply in replies.items()])
    assert [key for key, right in found.by_id.items() if right] == ["same", "little beside"]
    assert found.summary["accuracy"] == pytest.approx(2 / 6)
    assert found.summary["unread"] == 2
    assert 0.25 < found.summary["iou"] < 2 / 6


def test_an_overlap_of_half_is_right():
    half, less = "[0.0, 0.0, 0.5, 0.5]", "[0.0, 0.0, 0.5, 0.49]"
    items = [item(reply, reply, "llava", (0, 0, 50, 100), 100, 100) for reply in (half, less)]
    assert box_accuracy(items).by_id == {half: 1.0, less: 0.0}
    assert box_accuracy(items, threshold=0.49).by_id == {half: 1.0, less: 1.0}


def test_the_first_box_counts():
    right, wrong = (WRITERS["cogvlm"](box) for box in (TRUTH, (400, 0, 500, 100)))
    found = box_accuracy([item("1", right + wrong, "cogvlm"), item("2", wrong + right, "cogvlm")])
    assert found.by_id == {"1": 1.0, "2": 0.0}


def test_qwen_answers_behind_the_box_tag_of_its_prompt():
    """Its prompt for grounding ends in `<box>`, so that the reply begins with the first point."""
    written = WRITERS["qwen_vl"](TRUTH)
    assert box_accuracy([item("1", written.partition("<box>")[2], "qwen_vl")]).by_id == {"1": 1.0}


def test_accuracy_of_every_split():
    right, wrong = WRITERS["llava"](TRUTH), "nowhere"
    items = [
        item(str(n), reply, "llava", kind=kind) for n, (kind, reply) in enumerate([("val", right), ("testA", wrong)])
    ]
    found = box_accuracy(items).summary
    assert (found["accuracy"], found["val/accuracy"], found["testA/accuracy"]) == (0.5, 1.0, 0.0)
