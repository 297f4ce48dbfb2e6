"""Scenes: drawings scattered over a canvas, or handwritten digits in a row, and their rendering."""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image

from mmrnn.data.demo.digits import Digit, digit_mask
from mmrnn.data.demo.drawings import Drawing
from mmrnn.data.demo.sprites import sprite

RGB = tuple[int, int, int]

MAX_OBJECTS = 5
"""Most drawings in a scene."""

DRAWING_SIZES = {1: (0.36, 0.5), 2: (0.34, 0.44), 3: (0.34, 0.44), 4: (0.32, 0.44), 5: (0.26, 0.3)}
"""Range of a drawing's longer side, as a share of the canvas, by the number of drawings."""

QUARTERS = ((0.0, 0.0, 0.5), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5), (0.5, 0.5, 0.5))
CORNERS = ((0.0, 0.0, 0.34), (0.66, 0.0, 0.34), (0.0, 0.66, 0.34), (0.66, 0.66, 0.34), (0.33, 0.33, 0.34))
"""Left, top and side of the squares that drawings are placed in, as shares of the canvas: quarters, or for five
drawings the corners and the middle."""

ANGLES = (-15, -8, 0, 8, 15)
"""Rotations of a drawing in degrees."""


@dataclass(frozen=True)
class Placed:
    """A drawing or digit on a canvas.

    Attributes:
        thing: the drawing or digit.
        x: of the centre, in pixels.
        y: of the centre, in pixels.
        side: the longer one, in pixels.
        angle: rotation of a drawing, in degrees.
        ink: colour of a digit.
    """

    thing: Drawing | Digit
    x: float
    y: float
    side: int
    angle: int = 0
    ink: RGB = (0, 0, 0)


@dataclass(frozen=True)
class Scene:
    """A canvas and what is on it.

    Attributes:
        size: height and width in pixels.
        background: two colours and the direction of the gradient between them.
        placed: drawings or digits.
    """

    size: int
    background: tuple[RGB, RGB, str]
    placed: tuple[Placed, ...]

    @property
    def drawings(self) -> tuple[Placed, ...]:
        """The placed drawings."""
        return tuple(placed for placed in self.placed if isinstance(placed.thing, Drawing))

    @property
    def digits(self) -> tuple[Placed, ...]:
        """The placed digits from left to right."""
        digits = (placed for placed in self.placed if isinstance(placed.thing, Digit))
        return tuple(sorted(digits, key=lambda placed: placed.x))

    def render(self) -> Image.Image:
        """Return the scene as an RGB image."""
        canvas = self.canvas()
        for placed in self.placed:
            layer, mask = self.layer(placed)
            left, top = round(placed.x - mask.width / 2), round(placed.y - mask.height / 2)
            canvas.paste(layer, (left, top, left + mask.width, top + mask.height), mask)
        return canvas

    def canvas(self) -> Image.Image:
        """Return the background."""
        first, second, direction = self.background
        canvas = Image.new("RGB", (self.size, self.size), first)
        if first != second:
            canvas.paste(second, mask=gradient(self.size, direction))
        return canvas

    def layer(self, placed: Placed) -> tuple[Image.Image | RGB, Image.Image]:
        """Return what is pasted for a drawing or digit, and its mask."""
        if isinstance(placed.thing, Digit):
            return placed.ink, digit_mask(placed.thing.index, placed.side)
        drawing = sprite(placed.thing.char, placed.side, placed.angle)
        return drawing, drawing


DIRECTIONS = ("down", "across", "diagonal")
"""Directions of a gradient."""


def rgb(hue: float, saturation: float, value: float) -> RGB:
    """Convert a colour from HSV; hue wraps around, saturation and value are clamped to 0 to 1."""
    red, green, blue = hsv_to_rgb(hue % 1, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def background(rng: Random, dark: bool) -> tuple[RGB, RGB, str]:
    """Draw two colours, the same or close to each other, and the direction of the gradient between them."""
    hue, saturation = rng.random(), rng.uniform(0.05, 0.5)
    value = rng.uniform(0.35, 0.6) if dark else rng.uniform(0.75, 1)
    first = second = rgb(hue, saturation, value)
    if rng.random() < 0.6:
        second = rgb(hue + rng.uniform(-0.1, 0.1), saturation, value + rng.choice((-0.15, 0.15)))
    return first, second, rng.choice(DIRECTIONS)


@cache
def gradient(size: int, direction: str) -> Image.Image:
    """Return a gradient from 0 to 255 over a square (mode `L`)."""
    down = Image.linear_gradient("L").resize((size, size))
    across = down.transpose(Image.Transpose.ROTATE_90)
    return {"down": down, "across": across, "diagonal": Image.blend(down, across, 0.5)}[direction]


def drawing_scene(rng: Random, drawings: Sequence[Drawing], size: int) -> Scene:
    """Place drawings on a canvas without overlap, each in a square of its own; a single one anywhere."""
    number = len(drawings)
    squares = [(0.0, 0.0, 1.0)] if number == 1 else rng.sample(CORNERS if number > 4 else QUARTERS, number)
    low, high = DRAWING_SIZES[number]
    step = max(1, size // 32)  # few different sizes keep the cache of sprites small
    placed = []
    for drawing, (left, top, room) in zip(drawings, squares, strict=True):
        side = round(rng.uniform(low, high) * size / step) * step
        slack = max(room * size - 1.12 * side, 0)  # room for the rotation
        x, y = ((start + room / 2) * size + slack * (rng.random() - 0.5) for start in (left, top))
        placed.append(Placed(drawing, x, y, side, rng.choice(ANGLES)))
    return Scene(size, background(rng, dark=rng.random() < 0.25), tuple(placed))


def digit_scene(rng: Random, digits: Sequence[Digit], size: int) -> Scene:
    """Place digits in a row on a canvas, in one colour, dark on light or light on dark."""
    dark = rng.random() < 0.4
    ink = rgb(rng.random(), rng.uniform(0, 0.3), 1.0) if dark else rgb(rng.random(), rng.uniform(0, 1), 0.2)
    side = round(size * min(rng.uniform(0.25, 0.34), 0.95 / len(digits)))
    pitch = min(side * rng.uniform(0.9, 1.15), (size - side) / max(len(digits) - 1, 1))
    length = pitch * (len(digits) - 1) + side
    left = side / 2 + rng.uniform(0, size - length)
    line = rng.uniform(0.6 * side, size - 0.6 * side)
    placed = [
        Placed(digit, left + rank * pitch, line + rng.uniform(-0.08, 0.08) * side, side, ink=ink)
        for rank, digit in enumerate(digits)
    ]
    return Scene(size, background(rng, dark), tuple(placed))
