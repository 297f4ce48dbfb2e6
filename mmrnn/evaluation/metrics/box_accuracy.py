"""Grounding accuracy: boxes that overlap their reference by half."""

import re
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torchvision.ops import box_iou

from mmrnn.evaluation.metrics.items import BoxItem, Scores, counts_as_wrong, mean, score_each
from mmrnn.prompts import boxes
from mmrnn.prompts.boxes import Box
from mmrnn.types.bounds import Probability

Codec = Literal["minigptv2", "cogvlm", "qwen_vl", "llava"]


def box_accuracy(items: Sequence[BoxItem], *, codec: Codec, threshold: Probability = 0.5) -> Scores:
    """Score 1 where the first box of the reply and the reference overlap by `threshold` (IoU) or more, else 0.

    The rule of RefCOCO (Yu et al. 2016). A reply without a box, or with one of no area, is wrong.

    Args:
        items: with boxes in pixels.
        codec: form in which the design writes boxes (`prompts/boxes.py`). MiniGPT-v2's takes a single box alone;
            Qwen-VL's numbers are divided by 999, as its own evaluation does.
        threshold: least intersection over union.

    Returns:
        Scores; the summary has the accuracy, `iou`, the mean overlap, and `unread`, the number of replies without box.

    Raises:
        ValueError: no items, an id twice, an unknown codec, or a reference without area.
    """
    if codec not in PARSERS:
        raise ValueError(f"codec={codec!r} is unknown; one of {', '.join(PARSERS)} fits")
    for item in items:
        if not _has_area(item.box):
            raise ValueError(f"reference of question {item.id!r} is a box without area: {item.box}")
    found = {item.id: read_box(item, codec) for item in items}
    overlap = score_each(items, lambda item: _iou(found[item.id], item.box))
    right = {key: float(value >= threshold) for key, value in overlap.items()}
    unread = sum(box is None for box in found.values())
    return Scores(right, {"accuracy": mean([*right.values()]), "iou": mean([*overlap.values()]), "unread": unread})


def read_box(item: BoxItem, codec: Codec) -> Box | None:
    """Return the first box of a reply in pixels; None: none, a reply too long, or a number of ten digits."""
    unreadable = counts_as_wrong(item) or re.search(r"\d{10}", item.reply)
    return None if unreadable else PARSERS[codec](item.reply, item.width, item.height)


def _minigptv2(text: str, width: int, height: int) -> Box | None:
    return boxes.parse_minigptv2_refer(text, width, height)


def _cogvlm(text: str, width: int, height: int) -> Box | None:
    return next((box for group in boxes.parse_cogvlm(text, width, height) for box in group), None)


def _qwen_vl(text: str, width: int, height: int) -> Box | None:
    return next((found.box for found in boxes.parse_qwen_vl(text, width, height, divisor=999)), None)


def _llava(text: str, width: int, height: int) -> Box | None:
    return next(iter(boxes.parse_llava(text, width, height)), None)


PARSERS: dict[str, Callable[[str, int, int], Box | None]] = {
    "minigptv2": _minigptv2,
    "cogvlm": _cogvlm,
    "qwen_vl": _qwen_vl,
    "llava": _llava,
}


def _has_area(box: Box) -> bool:
    return box[2] > box[0] and box[3] > box[1]


def _iou(box: Box | None, truth: Box) -> float:
    if box is None or not _has_area(box):
        return 0.0
    one, other = (torch.tensor([value], dtype=torch.float64) for value in (box, truth))
    return box_iou(one, other).item()
