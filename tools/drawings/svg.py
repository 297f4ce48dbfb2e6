"""SVG drawing that a reader of any theme can read: it has a background of its own, in a light and a dark version."""

from collections.abc import Sequence
from html import escape

LIGHT = {
    "back": "#ffffff",
    "ink": "#1f2937",
    "faint": "#5b6472",
    "grid": "#d5d9e0",
    "part": "#e8eef8",
    "edge": "#3b5b92",
    "text": "#e2e4e9",
}
DARK = {
    "back": "#16191f",
    "ink": "#e5e7eb",
    "faint": "#a3adbb",
    "grid": "#394150",
    "part": "#24314a",
    "edge": "#8fb0e8",
    "text": "#4b5260",
}
LINES = (("#1f6fb2", "#6bb1f0"), ("#c0492f", "#f08a72"), ("#2f7d51", "#6cc493"))
"""Colours of lines in a chart, in a light and a dark theme."""


def rules(colours: dict[str, str], dark: bool) -> str:
    """Rules of all classes in one theme."""
    named = [f".{name}{{fill:{colour}}}.{name}-line{{stroke:{colour}}}" for name, colour in colours.items()]
    named += [f".c{n}{{fill:{pair[dark]}}}.c{n}-line{{stroke:{pair[dark]}}}" for n, pair in enumerate(LINES)]
    return "".join(named)


STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI','Noto Sans','DejaVu Sans',sans-serif}"
    ".code{font-family:ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace}.bold{font-weight:600}"
    ".line{fill:none;stroke-width:1.6;stroke-linejoin:round}.over{stroke:#1b2230;stroke-opacity:.75}"
    f".dark-ink{{fill:#1b2230}}{rules(LIGHT, False)}@media (prefers-color-scheme:dark){{{rules(DARK, True)}}}"
)


def number(value: float) -> str:
    """A coordinate with one digit behind the point, where it needs one."""
    return f"{value:.1f}".removesuffix(".0")


class Drawing:
    """Elements of an SVG image, in the order in which they are painted.

    Args:
        width: of the image.
        height: of the image.
        title: short alternative text.
        description: long alternative text.

    Colours are given by the names of `LIGHT` and `DARK`, or `c0`, `c1`, ... of `LINES`.
    """

    def __init__(self, width: int, height: int, title: str, description: str):
        self.width, self.height, self.title, self.description = width, height, title, description
        self.parts: list[str] = []
        self.box(0.5, 0.5, width - 1, height - 1, fill="back", edge="grid", radius=8)

    def box(
        self, x: float, y: float, w: float, h: float, *, fill: str, edge: str | None = None, radius: float = 5
    ) -> None:
        """Draw a rectangle; `fill` is a colour by name, or one such as `#aabbcc` that holds in both themes."""
        colour = f'fill="{fill}" class="' if fill.startswith("#") else f'class="{fill} '
        line = f"{edge}-line" if edge else ""
        place = f'x="{number(x)}" y="{number(y)}" width="{number(w)}" height="{number(h)}" rx="{number(radius)}"'
        self.parts.append(f'<rect {place} {colour}{line}"/>'.replace(' class=""', "").replace(' "', '"'))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 13,
        fill: str = "ink",
        style: str = "",
        anchor: str = "middle",
    ) -> None:
        """Write a line of text; `y` is its base line, `style` may name `bold` and `code`."""
        place = f'x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} class="{f"{fill} {style}".strip()}">{escape(text)}</text>')

    def path(
        self, points: Sequence[tuple[float, float]], *, colour: str = "ink", width: float = 1.6, dashes: str = ""
    ) -> None:
        """Draw a line through points."""
        along = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        named = colour if colour == "over" else f"{colour}-line"
        self.parts.append(f'<polyline points="{along}" class="line {named}" stroke-width="{number(width)}"{dashed}/>')

    def arrow(self, points: Sequence[tuple[float, float]], *, colour: str = "ink", width: float = 1.6) -> None:
        """Draw a line through points that ends in an arrow head."""
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        self.path([*points[:-1], (x1 - 5 * dx, y1 - 5 * dy)], colour=colour, width=width)
        sides = [(x1 - 8 * dx - s * 4 * dy, y1 - 8 * dy + s * 4 * dx) for s in (1, -1)]
        self.polygon([(x1, y1), *sides], fill=colour)

    def polygon(self, points: Sequence[tuple[float, float]], *, fill: str) -> None:
        """Draw a filled polygon."""
        corners = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.parts.append(f'<polygon points="{corners}" class="{"dark-ink" if fill == "over" else fill}"/>')

    def circle(self, x: float, y: float, radius: float, *, fill: str) -> None:
        """Draw a filled circle."""
        self.parts.append(f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="{fill}"/>')

    def __str__(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-labelledby="title description">'
        )
        words = (
            f'<title id="title">{escape(self.title)}</title><desc id="description">{escape(self.description)}</desc>'
        )
        return "\n".join([head, words, f"<style>{STYLE}</style>", *self.parts, "</svg>"]) + "\n"
