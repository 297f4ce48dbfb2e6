"""Drawing of boxes on an image."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mmrnn.prompts.boxes import GroundedBox

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000")
"""Colours of the boxes, in turn."""


def draw_boxes(image: Image.Image, boxes: Sequence[GroundedBox]) -> Image.Image:
    """Return a copy of an image with its boxes, and their phrases in them; what lies outside is cut off."""
    drawn = image.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    size = max(image.size)
    width, font = max(2, size // 300), ImageFont.load_default(max(11, size // 50))
    for number, (phrase, (left, top, right, bottom)) in enumerate(boxes):
        colour = COLOURS[number % len(COLOURS)]
        xs = sorted(min(max(x, 0), image.width - 1) for x in (left, right))
        ys = sorted(min(max(y, 0), image.height - 1) for y in (top, bottom))
        draw.rectangle((xs[0], ys[0], xs[1], ys[1]), outline=colour, width=width)
        if phrase:
            corner = xs[0] + width + 1, ys[0] + width + 1
            draw.rectangle(draw.textbbox(corner, phrase, font=font), fill=colour)
            draw.text(corner, phrase, fill="white", font=font)
    return drawn
