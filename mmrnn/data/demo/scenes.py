"""Scenes: drawings scattered over a canvas, or handwritten digits in a row, and how they are painted."""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image

from mmrnn.data.demo.digits import Digit, stroke
from mmrnn.data.demo.drawings import Drawing
from mmrnn.data.demo.sprites import sprite

RGB = tuple[int, int, int]

MAX_OBJECTS = 5
"""Drawings in a scene, at most."""

SIDES = {1: (0.36, 0.5), 2: (0.34, 0.44), 3: (0.34, 0.44), 4: (0.32, 0.44), 5: (0.26, 0.3)}
"""How large a drawing is, as a share of the canvas, by how many there are."""

QUARTERS = ((0.0, 0.0, 0.5), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5), (0.5, 0.5, 0.5))
CORNERS = ((0.0, 0.0, 0.34), (0.66, 0.0, 0.34), (0.0, 0.66, 0.34), (0.66, 0.66, 0.34), (0.33, 0.33, 0.34))
"""Left, top and side of the squares that drawings get: any of the quarters, or for five the corners and the middle."""

TILTS = (-15, -8, 0, 8, 15)
"""Degrees that a drawing may be turned."""


@dataclass(frozen=True)
class Placed:
    """A drawing or digit with its centre, the longer side (both in pixels), its tilt (degrees) and a digit's ink."""

    thing: Drawing | Digit
    x: float
    y: float
    side: int
    angle: int = 0
    ink: RGB = (0, 0, 0)


@dataclass(frozen=True)
class Scene:
    """What is on a canvas of `size` pixels. The ground goes softly from one colour to another in some direction."""

    size: int
    ground: tuple[RGB, RGB, str]
    placed: tuple[Placed, ...]

    @property
    def drawings(self) -> tuple[Placed, ...]:
        return tuple(placed for placed in self.placed if isinstance(placed.thing, Drawing))

    @property
    def digits(self) -> tuple[Placed, ...]:
        """From left to right."""
        digits = (placed for placed in self.placed if isinstance(placed.thing, Digit))
        return tuple(sorted(digits, key=lambda placed: placed.x))

    def render(self) -> Image.Image:
        first, second, direction = self.ground
        canvas = Image.new("RGB", (self.size, self.size), first)
        if first != second:
            canvas.paste(second, mask=ramp(self.size, direction))
        for placed in self.placed:
            if isinstance(placed.thing, Digit):
                mask = stroke(placed.thing.index, placed.side)
                layer: Image.Image | RGB = placed.ink
            else:
                layer = mask = sprite(placed.thing.char, placed.side, placed.angle)
            left, top = round(placed.x - mask.width / 2), round(placed.y - mask.height / 2)
            canvas.paste(layer, (left, top, left + mask.width, top + mask.height), mask)
        return canvas


RAMPS = ("down", "across", "aslant")


def shade(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = hsv_to_rgb(hue % 1, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def ground(rng: Random, dark: bool) -> tuple[RGB, RGB, str]:
    """One colour, or a soft gradient to one near it."""
    hue, saturation = rng.random(), rng.uniform(0.05, 0.5)
    value = rng.uniform(0.35, 0.6) if dark else rng.uniform(0.75, 1)
    first = second = shade(hue, saturation, value)
    if rng.random() < 0.6:
        second = shade(hue + rng.uniform(-0.1, 0.1), saturation, value + rng.choice((-0.15, 0.15)))
    return first, second, rng.choice(RAMPS)


@cache
def ramp(size: int, direction: str) -> Image.Image:
    """From 0 to 255 over a square (mode `L`)."""
    down = Image.linear_gradient("L").resize((size, size))
    across = down.transpose(Image.Transpose.ROTATE_90)
    return {"down": down, "across": across, "aslant": Image.blend(down, across, 0.5)}[direction]


def scatter(rng: Random, drawings: Sequence[Drawing], size: int) -> Scene:
    """The drawings on the canvas, whole, each somewhere in a square of its own; a single one anywhere."""
    number = len(drawings)
    squares = [(0.0, 0.0, 1.0)] if number == 1 else rng.sample(CORNERS if number > 4 else QUARTERS, number)
    low, high = SIDES[number]
    step = max(1, size // 32)  # few different sizes: few sprites to keep
    placed = []
    for drawing, (left, top, room) in zip(drawings, squares, strict=True):
        side = round(rng.uniform(low, high) * size / step) * step
        slack = max(room * size - 1.12 * side, 0)  # a little more than the side, for the tilt
        x, y = ((start + room / 2) * size + slack * (rng.random() - 0.5) for start in (left, top))
        placed.append(Placed(drawing, x, y, side, rng.choice(TILTS)))
    return Scene(size, ground(rng, dark=rng.random() < 0.25), tuple(placed))


def row(rng: Random, digits: Sequence[Digit], size: int) -> Scene:
    """The digits side by side, somewhere on the canvas, in one ink, dark on light or light on dark."""
    dark = rng.random() < 0.4
    ink = shade(rng.random(), rng.uniform(0, 0.3), 1.0) if dark else shade(rng.random(), rng.uniform(0, 1), 0.2)
    side = round(size * min(rng.uniform(0.25, 0.34), 0.95 / len(digits)))
    pitch = min(side * rng.uniform(0.9, 1.15), (size - side) / max(len(digits) - 1, 1))
    length = pitch * (len(digits) - 1) + side
    left = side / 2 + rng.uniform(0, size - length)
    line = rng.uniform(0.6 * side, size - 0.6 * side)
    placed = [
        Placed(digit, left + rank * pitch, line + rng.uniform(-0.08, 0.08) * side, side, ink=ink)
        for rank, digit in enumerate(digits)
    ]
    return Scene(size, ground(rng, dark), tuple(placed))
