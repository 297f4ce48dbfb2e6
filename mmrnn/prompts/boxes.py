"""Bounding boxes as text, formatted and parsed as each design does.

A box is `(left, top, right, bottom)` in pixels of an image of `width` x `height`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

Number = int | float
Box = tuple[Number, Number, Number, Number]

Codec = Literal["minigptv2", "cogvlm", "qwen_vl", "llava"]
"""Forms in which designs write the box of a phrase; see `CODECS`."""


class GroundedBox(NamedTuple):
    """A box and the phrase that it belongs to; the phrase is empty where the text gives none."""

    phrase: str
    box: Box


def format_minigptv2(box: Box, width: int, height: int) -> str:
    """Format as `{<x1><y1><x2><y2>}` in hundredths, rounded down (MiniGPT-v2)."""
    return "{" + "".join(f"<{int(100 * value)}>" for value in _fractions(box, width, height)) + "}"


def parse_minigptv2(text: str, width: int, height: int) -> list[GroundedBox]:
    """Parse the boxes behind each `<p>phrase</p>`, or those of a text without phrases.

    A part without exactly four numbers is skipped.
    """
    groups = re.findall(r"<p>(.*?)</p>(.*?)(?=<p>|$)", text, re.DOTALL) if "<p>" in text else [("", text)]
    found = []
    for phrase, rest in groups:
        for part in rest.split("<delim>"):
            numbers = re.findall(r"\d+", part)
            if len(numbers) == 4:
                found.append(GroundedBox(phrase, _pixels(numbers, 100, width, height)))
    return found


def parse_minigptv2_refer(text: str, width: int, height: int) -> Box | None:
    """Parse an answer to `[refer]` as MiniGPT-v2's evaluation does.

    Blanks and `<unk>` are removed first, also from inside numbers. Words without digits may follow the box.

    Returns:
        The box; None: the answer does not begin with a box, or has other numbers behind it.
    """
    text = text.replace("<unk>", "").replace(" ", "").strip()
    numbers = re.findall(r"\d+", text)
    begins = re.match(r"\{" + r"<\d{1,3}>" * 4 + r"\}", text)
    return _pixels(numbers, 100, width, height) if begins and len(numbers) == 4 else None


def format_cogvlm(boxes: list[Box], width: int, height: int) -> str:
    """Format as `[[x0,y0,x1,y1;...]]` in thousandths of three digits (CogVLM)."""
    parts = (
        ",".join(f"{min(int(1000 * value), 999):03d}" for value in _fractions(box, width, height)) for box in boxes
    )
    return f"[[{';'.join(parts)}]]"


def parse_cogvlm(text: str, width: int, height: int) -> list[list[Box]]:
    """Parse one list of boxes for every `[[...]]`; a part that is not four numbers is skipped."""
    groups = []
    for group in re.findall(r"\[\[(.*?)\]\]", text):
        parts = (part.split(",") for part in group.split(";"))
        groups.append(
            [_pixels(part, 1000, width, height) for part in parts if len(part) == 4 and all(map(str.isdecimal, part))]
        )
    return groups


def format_qwen_vl(phrase: str, box: Box, width: int, height: int) -> str:
    """Format as `<ref>phrase</ref><box>(x1,y1),(x2,y2)</box>` in thousandths (Qwen-VL)."""
    left, top, right, bottom = (min(int(1000 * value), 999) for value in _fractions(box, width, height))
    return f"<ref>{phrase}</ref><box>({left},{top}),({right},{bottom})</box>"


def parse_qwen_vl(text: str, width: int, height: int, *, divisor: int = 1000) -> list[GroundedBox]:
    """Parse the boxes of a text, with the phrase before each where there is one.

    Args:
        divisor: of the coordinates; the released code has 1000 for drawing and 999 for evaluation.
    """
    number = r"(\d+)\s*"
    point = rf"\(\s*{number},\s*{number}\)"
    pattern = rf"(?:<ref>((?:(?!</ref>).)*)</ref>)?\s*<box>\s*{point}\s*,\s*{point}\s*</box>"
    matches = re.finditer(pattern, text, re.DOTALL)
    return [GroundedBox(match[1] or "", _pixels(match.groups()[1:], divisor, width, height)) for match in matches]


def parse_qwen_vl_refer(text: str, width: int, height: int) -> Box | None:
    """Parse the first two points of an answer, divided by 999, as Qwen-VL's evaluation of grounding does."""
    point = r"\(\s*(\d+)\s*,\s*(\d+)\s*\)"
    found = re.search(rf"{point}\s*,\s*{point}", text)
    return _pixels(found.groups(), 999, width, height) if found else None


def format_fuyu(box: Box, scale: float = 1.0) -> list[int]:
    """Compute the four numbers of `<box>`: top, left, bottom, right (Fuyu).

    They are half the pixels of the scaled image, rounded half to even.
    """
    left, top, right, bottom = box
    return [round(value / 2 * scale) for value in (top, left, bottom, right)]


def parse_fuyu(numbers: list[int], width: int, height: int, *, max_size: tuple[int, int] = (1080, 1920)) -> Box:
    """Compute a box from its four numbers.

    Args:
        width: of the image before it was scaled down to `max_size`.
        height: likewise.
        max_size: height and width.
    """
    scale = min(1.0, max_size[0] / height, max_size[1] / width)
    top, left, bottom, right = (2 * int(number / scale) for number in numbers)
    return left, top, right, bottom


def format_llava(box: Box, width: int, height: int) -> str:
    """Format as `[x1, y1, x2, y2]` in fractions, with two decimals, of the image padded to a square (LLaVA-1.5)."""
    side = max(width, height)
    pad_x, pad_y = (side - width) / 2, (side - height) / 2
    padded = (box[0] + pad_x, box[1] + pad_y, box[2] + pad_x, box[3] + pad_y)
    return f"[{', '.join(f'{value / side:.2f}' for value in padded)}]"


def parse_llava(text: str, width: int, height: int) -> list[Box]:
    """Parse the boxes of a text, in pixels of the image before padding."""
    side = max(width, height)
    pad_x, pad_y = (side - width) / 2, (side - height) / 2
    number = r"\s*([01](?:\.\d+)?)\s*"
    found = re.findall(r"\[" + ",".join([number] * 4) + r"\]", text)
    boxes = ([float(value) * side for value in numbers] for numbers in found)
    return [(a - pad_x, b - pad_y, c - pad_x, d - pad_y) for a, b, c, d in boxes]


def _fractions(box: Box, width: int, height: int) -> tuple[float, ...]:
    return tuple(value / size for value, size in zip(box, (width, height) * 2, strict=True))


def _pixels(numbers: tuple[str, ...] | list[str], divisor: int, width: int, height: int) -> Box:
    left, top, right, bottom = (
        int(number) / divisor * size for number, size in zip(numbers, (width, height) * 2, strict=True)
    )
    return left, top, right, bottom


class BoxCodec(NamedTuple):
    """Grounding by one design.

    Attributes:
        question: as the design asks for the box of a phrase, with the field `{}` for it.
        parse: reads the first box of a reply; None: there is none.
        parse_all: reads all boxes of a reply, with their phrases.
        prompt: card of the prompt that the design asks with.
    """

    question: str
    parse: Callable[[str, int, int], Box | None]
    parse_all: Callable[[str, int, int], list[GroundedBox]]
    prompt: str


def _all_cogvlm(text: str, width: int, height: int) -> list[GroundedBox]:
    return [GroundedBox("", box) for group in parse_cogvlm(text, width, height) for box in group]


def _all_llava(text: str, width: int, height: int) -> list[GroundedBox]:
    return [GroundedBox("", box) for box in parse_llava(text, width, height)]


def _all_qwen_vl(text: str, width: int, height: int) -> list[GroundedBox]:
    """Boxes with their tags, or the one that continues the tag of the prompt."""
    found = parse_qwen_vl(text, width, height)
    box = None if found else parse_qwen_vl_refer(text, width, height)
    return found if box is None else [GroundedBox("", box)]


def _first_cogvlm(text: str, width: int, height: int) -> Box | None:
    return next((box for _, box in _all_cogvlm(text, width, height)), None)


def _first_llava(text: str, width: int, height: int) -> Box | None:
    return next((box for _, box in _all_llava(text, width, height)), None)


CODECS: Mapping[str, BoxCodec] = {
    "minigptv2": BoxCodec("give me the location of {}", parse_minigptv2_refer, parse_minigptv2, "minigptv2_refer"),
    "cogvlm": BoxCodec("Where is {}? answer in [[x0,y0,x1,y1]] format.", _first_cogvlm, _all_cogvlm, "cogvlm_base"),
    "qwen_vl": BoxCodec("{}", parse_qwen_vl_refer, _all_qwen_vl, "qwen_vl_refer"),
    "llava": BoxCodec(
        "Please provide the bounding box coordinate of the region this sentence describes: {}.",
        _first_llava,
        _all_llava,
        "llava_refer",
    ),
}
"""Every `Codec` by name. MiniGPT-v2's task word, and Qwen-VL's tags around the phrase, stand in their prompts."""
