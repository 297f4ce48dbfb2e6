"""Boxes as words: how each design writes places in an image, and reads them again.

A box is `(left, top, right, bottom)` in pixels of an image of `width x height`.
"""

import re
from typing import NamedTuple

Number = int | float
Box = tuple[Number, Number, Number, Number]


class Found(NamedTuple):
    """A phrase of a text and a box that belongs to it; the phrase is empty where the text gives none."""

    phrase: str
    box: Box


def minigpt(box: Box, width: int, height: int) -> str:
    """`{<x1><y1><x2><y2>}` in hundredths, cut off (MiniGPT-v2)."""
    return "{" + "".join(f"<{int(100 * value)}>" for value in _shares(box, width, height)) + "}"


def read_minigpt(text: str, width: int, height: int) -> list[Found]:
    """The boxes behind `<p>phrase</p>`; in a text without phrases, all of it. What has not four numbers is no box."""
    groups = re.findall(r"<p>(.*?)</p>(.*?)(?=<p>|$)", text, re.DOTALL) if "<p>" in text else [("", text)]
    found = []
    for phrase, rest in groups:
        for part in rest.split("<delim>"):
            numbers = re.findall(r"\d+", part)
            if len(numbers) == 4:
                found.append(Found(phrase, _pixels(numbers, 100, width, height)))
    return found


def read_refer(text: str, width: int, height: int) -> Box | None:
    """The one box of an answer to `[refer]`, as MiniGPT-v2 is judged; None where the answer is not just that."""
    match = re.fullmatch(r"\s*\{" + r"\s*<(\d{1,3})>" * 4 + r"\s*\}\s*(?:</s>)?\s*", text)
    return _pixels(match.groups(), 100, width, height) if match else None


def cogvlm(boxes: list[Box], width: int, height: int) -> str:
    """`[[x0,y0,x1,y1;...]]` in thousandths of three digits (CogVLM)."""
    written = (",".join(f"{min(int(1000 * value), 999):03d}" for value in _shares(box, width, height)) for box in boxes)
    return f"[[{';'.join(written)}]]"


def read_cogvlm(text: str, width: int, height: int) -> list[list[Box]]:
    """One list of boxes for every `[[...]]`; what is not four numbers is left out of its list."""
    groups = []
    for group in re.findall(r"\[\[(.*?)\]\]", text):
        parts = (part.split(",") for part in group.split(";"))
        groups.append(
            [_pixels(part, 1000, width, height) for part in parts if len(part) == 4 and all(map(str.isdigit, part))]
        )
    return groups


def qwen(phrase: str, box: Box, width: int, height: int) -> str:
    """`<ref>phrase</ref><box>(x1,y1),(x2,y2)</box>` in thousandths (Qwen-VL)."""
    left, top, right, bottom = (min(int(1000 * value), 999) for value in _shares(box, width, height))
    return f"<ref>{phrase}</ref><box>({left},{top}),({right},{bottom})</box>"


def read_qwen(text: str, width: int, height: int, *, divisor: int = 1000) -> list[Found]:
    """The boxes of a text, with the phrase before each where there is one.

    Args:
        divisor: 1000 where the released code draws, 999 where it judges.
    """
    number = r"(\d+)\s*"
    point = rf"\(\s*{number},\s*{number}\)"
    pattern = rf"(?:<ref>((?:(?!</ref>).)*)</ref>)?\s*<box>\s*{point}\s*,\s*{point}\s*</box>"
    matches = re.finditer(pattern, text, re.DOTALL)
    return [Found(match[1] or "", _pixels(match.groups()[1:], divisor, width, height)) for match in matches]


def fuyu(box: Box, scale: float = 1.0) -> list[int]:
    """The four numbers of `<box>` in the order top, left, bottom, right: half the pixels of the scaled image, rounded
    to the even neighbour (Fuyu).
    """
    left, top, right, bottom = box
    return [round(value / 2 * scale) for value in (top, left, bottom, right)]


def read_fuyu(numbers: list[int], width: int, height: int, *, most: tuple[int, int] = (1080, 1920)) -> Box:
    """A box from its numbers.

    Args:
        width, height: of the image before it was shrunk to `most` (height, width).
    """
    scale = min(1.0, most[0] / height, most[1] / width)
    top, left, bottom, right = (2 * int(number / scale) for number in numbers)
    return left, top, right, bottom


def llava(box: Box, width: int, height: int) -> str:
    """`[x1, y1, x2, y2]` in hundredths of the square that the image is padded to (LLaVA-1.5)."""
    side = max(width, height)
    right, down = (side - width) / 2, (side - height) / 2
    moved = (box[0] + right, box[1] + down, box[2] + right, box[3] + down)
    return f"[{', '.join(f'{value / side:.2f}' for value in moved)}]"


def read_llava(text: str, width: int, height: int) -> list[Box]:
    """The boxes of a text, in pixels of the image before it was padded."""
    side = max(width, height)
    right, down = (side - width) / 2, (side - height) / 2
    number = r"\s*([01](?:\.\d+)?)\s*"
    found = re.findall(r"\[" + ",".join([number] * 4) + r"\]", text)
    boxes = ([float(value) * side for value in numbers] for numbers in found)
    return [(a - right, b - down, c - right, d - down) for a, b, c, d in boxes]


def _shares(box: Box, width: int, height: int) -> tuple[float, ...]:
    return tuple(value / size for value, size in zip(box, (width, height) * 2, strict=True))


def _pixels(numbers: tuple[str, ...] | list[str], divisor: int, width: int, height: int) -> Box:
    left, top, right, bottom = (
        int(number) / divisor * size for number, size in zip(numbers, (width, height) * 2, strict=True)
    )
    return left, top, right, bottom
