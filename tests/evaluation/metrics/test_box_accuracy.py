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


def item(id, reply, box=TRUTH, width=WIDTH, height=HEIGHT):
    return BoxItem(id=id, reply=reply, box=box, width=width, height=height)


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
    found = box_accuracy([item(key, reply) for key, reply in replies.items()], codec=codec)
    assert [key for key, right in found.by_id.items() if right] == ["same", "little beside"]
    assert found.summary["accuracy"] == pytest.approx(2 / 6)
    assert found.summary["unread"] == 2
    assert 0.25 < found.summary["iou"] < 2 / 6


def test_an_overlap_of_half_is_right():
    half, less = "[0.0, 0.0, 0.5, 0.5]", "[0.0, 0.0, 0.5, 0.49]"
    items = [item(reply, reply, (0, 0, 50, 100), 100, 100) for reply in (half, less)]
    assert box_accuracy(items, codec="llava").by_id == {half: 1.0, less: 0.0}
    assert box_accuracy(items, codec="llava", threshold=0.49).by_id == {half: 1.0, less: 1.0}


def test_the_first_box_counts():
    right, wrong = (WRITERS["cogvlm"](box) for box in (TRUTH, (400, 0, 500, 100)))
    found = box_accuracy([item("1", right + wrong), item("2", wrong + right)], codec="cogvlm")
    assert found.by_id == {"1": 1.0, "2": 0.0}
