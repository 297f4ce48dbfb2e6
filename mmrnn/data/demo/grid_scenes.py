"""Scenes on a grid of nine places: drawings in a style, shapes behind them, and a small mark on one of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from mmrnn.data.demo.drawings import Drawing
from mmrnn.data.demo.scenes import ANGLES, RGB, Placed, Scene, background, rgb
from mmrnn.data.demo.sprites import outlined, recoloured, sprite

SIDE = 3
"""Places on a side of the grid."""

CELLS = tuple((column, row) for row in range(SIDE) for column in range(SIDE))

DRAWING_SIZE = (0.24, 0.28)
"""Range of a drawing's longer side, as a share of the canvas."""

SHAPE_SIZE = (0.1, 0.16)
"""Range of the size of a shape behind the drawings, as a share of the canvas."""

MARKS: dict[str, tuple[RGB, RGB]] = {
    "red": ((220, 30, 30), (255, 255, 255)),
    "green": ((20, 140, 50), (255, 255, 255)),
    "blue": ((30, 60, 220), (255, 255, 255)),
    "black": ((0, 0, 0), (255, 255, 255)),
    "yellow": ((255, 230, 0), (0, 0, 0)),
    "white": ((255, 255, 255), (0, 0, 0)),
}
"""Colours of a mark, by name, each with that of its edge."""

STYLES: dict[str, Callable[[str, int, int], Image.Image]] = {
    "plain": sprite,
    "outlined": outlined,
    "recoloured": recoloured,
}
"""Ways to draw a drawing (character, longer side in pixels, rotation in degrees)."""


@dataclass(frozen=True)
class Shape:
    """A disc or triangle behind the drawings: its centre and size in pixels, and its colour."""

    round: bool
    x: float
    y: float
    side: float
    colour: RGB


@dataclass(frozen=True)
class Mark:
    """A small square with an edge of one pixel: its top left corner and side in pixels, and its colour by name."""

    left: int
    top: int
    side: int
    colour: str


@dataclass(frozen=True)
class GridScene(Scene):
    """Drawings on a grid of nine places, at most one in each.

    Attributes:
        style: key of `STYLES`.
        shapes: behind the drawings; no question is about them.
        mark: on one of the drawings; None: there is none.
    """

    style: str = "plain"
    shapes: tuple[Shape, ...] = ()
    mark: Mark | None = None

    def at(self, cell: tuple[int, int]) -> Placed | None:
        """Return the drawing at a place (column, row), None where the place is empty or outside the grid."""
        return next((placed for placed in self.drawings if self.cell(placed) == cell), None)

    def cell(self, placed: Placed) -> tuple[int, int]:
        """Return column and row of a drawing."""
        return int(placed.x * SIDE / self.size), int(placed.y * SIDE / self.size)

    def canvas(self) -> Image.Image:
        """Return the background with the shapes."""
        canvas = super().canvas()
        pen = ImageDraw.Draw(canvas)
        for shape in self.shapes:
            left, top, right, bottom = (
                round(centre + sign * shape.side / 2) for sign in (-1, 1) for centre in (shape.x, shape.y)
            )
            if shape.round:
                pen.ellipse((left, top, right, bottom), fill=shape.colour)
            else:
                pen.polygon(((left, bottom), (right, bottom), ((left + right) // 2, top)), fill=shape.colour)
        return canvas

    def layer(self, placed: Placed) -> tuple[Image.Image | RGB, Image.Image]:
        """Return what is pasted for a drawing, and its mask."""
        drawing = STYLES[self.style](placed.thing.char, placed.side, placed.angle)
        return drawing, drawing

    def render(self) -> Image.Image:
        """Return the scene as an RGB image."""
        canvas = super().render()
        if mark := self.mark:
            fill, edge = MARKS[mark.colour]
            corners = (mark.left, mark.top, mark.left + mark.side - 1, mark.top + mark.side - 1)
            ImageDraw.Draw(canvas).rectangle(corners, fill=fill, outline=edge)
        return canvas


def grid_scene(
    rng: Random,
    drawings: Sequence[Drawing],
    cells: Sequence[tuple[int, int]],
    size: int,
    *,
    style: str = "plain",
    shapes: int = 0,
    mark: int = 0,
) -> GridScene:
    """Place drawings at some cells of a grid.

    Args:
        rng: draws sizes, rotations, exact places, background, shapes and mark.
        drawings: at least one.
        cells: column and row of each.
        size: height and width of the canvas in pixels.
        style: key of `STYLES`.
        shapes: number of shapes behind the drawings.
        mark: side of the mark in pixels; 0: there is none.
    """
    step, room = max(1, size // 64), size / SIDE  # few different sizes keep the cache of sprites small
    placed = []
    for drawing, cell in zip(drawings, cells, strict=True):
        side = round(rng.uniform(*DRAWING_SIZE) * size / step) * step
        slack = max(room - 1.12 * side, 0)  # room for the rotation
        x, y = ((place + 0.5) * room + slack * (rng.random() - 0.5) for place in cell)
        placed.append(Placed(drawing, x, y, side, rng.choice(ANGLES)))
    behind = tuple(
        Shape(
            rng.random() < 0.5,
            rng.uniform(0.05, 0.95) * size,
            rng.uniform(0.05, 0.95) * size,
            rng.uniform(*SHAPE_SIZE) * size,
            rgb(rng.random(), rng.uniform(0.3, 1), rng.uniform(0.3, 1)),
        )
        for _ in range(shapes)
    )
    ground = background(rng, dark=rng.random() < 0.25)
    return GridScene(size, ground, tuple(placed), style, behind, draw_mark(rng, placed, mark) if mark else None)


def draw_mark(rng: Random, placed: Sequence[Placed], side: int) -> Mark:
    """Put a mark of `side` pixels near the centre of one of the drawings."""
    marked = rng.choice(placed)
    left, top = (round(at + rng.uniform(-0.2, 0.2) * marked.side - side / 2) for at in (marked.x, marked.y))
    return Mark(left, top, side, rng.choice([*MARKS]))
