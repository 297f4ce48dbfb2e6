"""Grounding accuracy: boxes that overlap their reference by half."""

import re
from collections.abc import Sequence

import torch
from torchvision.ops import box_iou

from mmrnn.evaluation.metrics.items import BoxItem, Metric, Scores, counts_as_wrong, kind_means, mean, score_each
from mmrnn.prompts.boxes import CODECS, Box
from mmrnn.types import Probability, implements


@implements(Metric)
def box_accuracy(items: Sequence[BoxItem], *, threshold: Probability = 0.5) -> Scores:
    """Score 1 where the first box of the reply and the reference overlap by `threshold` (IoU) or more, else 0.

    The rule of RefCOCO (Yu et al. 2016). A reply without a box, or with one of no area, is wrong.

    Args:
        items: with boxes in pixels, and the codec that reads the reply. MiniGPT-v2's takes a single box alone;
            Qwen-VL's numbers are divided by 999, as its own evaluation does.
        threshold: least intersection over union.

    Returns:
        Scores; the summary has `accuracy`, that of each kind as `KIND/accuracy`, `iou`, the mean overlap, and `unread`,
        the number of replies without box.

    Raises:
        ValueError: no items, an id twice, an unknown codec, or a reference without area.
    """
    for item in items:
        if item.codec not in CODECS:
            raise ValueError(
                f"codec={item.codec!r} of question {item.id!r} is unknown; one of {', '.join(CODECS)} fits"
            )
        if not _has_area(item.box):
            raise ValueError(f"reference of question {item.id!r} is a box without area: {item.box}")
    found = {item.id: read_box(item) for item in items}
    overlap = score_each(items, lambda item: _iou(found[item.id], item.box))
    right = {key: float(value >= threshold) for key, value in overlap.items()}
    unread = sum(box is None for box in found.values())
    return Scores(right, kind_means(items, right) | {"iou": mean([*overlap.values()]), "unread": unread})


def read_box(item: BoxItem) -> Box | None:
    """Return the first box of a reply in pixels; None: none, a reply too long, or a number of ten digits."""
    unreadable = counts_as_wrong(item) or re.search(r"\d{10}", item.reply)
    return None if unreadable else CODECS[item.codec].parse(item.reply, item.width, item.height)


def _has_area(box: Box) -> bool:
    return box[2] > box[0] and box[3] > box[1]


def _iou(box: Box | None, truth: Box) -> float:
    if box is None or not _has_area(box):
        return 0.0
    one, other = (torch.tensor([value], dtype=torch.float64) for value in (box, truth))
    return box_iou(one, other).item()
