"""Line charts with logarithmic axes."""

from collections.abc import Mapping, Sequence
from math import log

from drawings.svg import LINES, Drawing

Points = Sequence[tuple[float, float]]

DASHES = ("", "", "7 4")
"""Of each line, so that lines which lie on one another can be seen."""


def marker(drawing: Drawing, index: int, x: float, y: float) -> None:
    """Draw the marker of a line: a circle, a square, a triangle."""
    colour = f"c{index}"
    if index == 0:
        drawing.circle(x, y, 4, fill=colour)
    elif index == 1:
        drawing.box(x - 4, y - 4, 8, 8, fill=colour, radius=0)
    else:
        drawing.polygon([(x - 5, y + 4), (x + 5, y + 4), (x, y - 5)], fill=colour)


def legend(drawing: Drawing, x: float, y: float, names: Sequence[str]) -> None:
    """Name the lines, each behind a sample of it."""
    for index, name in enumerate(names[: len(LINES)]):
        drawing.path([(x, y), (x + 34, y)], colour=f"c{index}", width=2.2, dashes=DASHES[index])
        marker(drawing, index, x + 17, y)
        drawing.text(x + 42, y + 5, name, size=14, anchor="start")
        x += 70 + 8.5 * len(name)


class Axes:
    """A chart in a drawing.

    Args:
        drawing: to paint on.
        left: edge of the area of the lines; so are `top`, `right` and `bottom`.
        xs: value -> label of the ticks of the horizontal axis, whose first and last are its ends.
        ys: those of the vertical axis.
    """

    def __init__(
        self,
        drawing: Drawing,
        area: tuple[float, float, float, float],
        xs: Mapping[float, str],
        ys: Mapping[float, str],
    ):
        self.drawing, self.area = drawing, area
        self.ends = (min(xs), max(xs), min(ys), max(ys))
        left, top, right, bottom = area
        for value, label in xs.items():
            x, _ = self.place(value, min(ys))
            drawing.path([(x, top), (x, bottom)], colour="grid", width=1)
            drawing.text(x, bottom + 19, label, size=12.5, fill="faint")
        for value, label in ys.items():
            _, y = self.place(min(xs), value)
            drawing.path([(left, y), (right, y)], colour="grid", width=1)
            drawing.text(left - 8, y + 4.5, label, size=12.5, fill="faint", anchor="end")

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Point of the drawing where values are shown."""
        left, top, right, bottom = self.area
        x0, x1, y0, y1 = self.ends
        across, down = log(x / x0) / log(x1 / x0), log(y / y0) / log(y1 / y0)
        return left + (right - left) * across, bottom - (bottom - top) * down

    def line(self, index: int, points: Points) -> None:
        """Draw a line with its markers."""
        placed = [self.place(x, y) for x, y in points]
        self.drawing.path(placed, colour=f"c{index}", width=2.2, dashes=DASHES[index])
        for x, y in placed:
            marker(self.drawing, index, x, y)
