"""Line and bar charts as SVG, without a plotting library."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 240, 48, 28, 24
COLOURS = ("#1f6fb2", "#c8553d", "#3d8b5f", "#8a5fb0", "#b08a2e", "#4b5563")

ROW = 16
"""Height of the name of a line below its chart."""

Points = Sequence[tuple[int, float]]
Ranges = Sequence[tuple[int, float, float]]


def chart(
    title: str, lines: Mapping[str, Points], *, percent: bool = False, bands: Mapping[str, Ranges] | None = None
) -> str:
    """Return an SVG chart of named lines over steps; empty lines and values that are not finite are left out.

    Args:
        title: of the chart.
        lines: (step, value) of each.
        percent: values are shares from 0 to 1.
        bands: (step, lowest, highest) around lines.

    The names of several lines stand below the chart, one a row, each behind a sample of its line.
    """
    finite = {name: [(x, y) for x, y in points if isfinite(y)] for name, points in lines.items()}
    lines = {name: points for name, points in finite.items() if points}
    if not lines:
        return ""
    bands = bands or {}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    ys += [y for points in bands.values() for _, low, high in points for y in (low, high)]
    right = max(xs) or 1
    values = [0.0, 0.25, 0.5, 0.75, 1.0] if percent else ticks(min(0.0, *ys), max(0.0, *ys))
    bottom, top = values[0], values[-1]

    def place(x: int, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - 12) * x / right
        down = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - bottom) / (top - bottom)
        return f"{across:.1f},{down:.1f}"

    named = len(lines) > 1 or bool(bands)
    height = HEIGHT + (ROW * len(lines) if named else 0)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<text x="{LEFT}" y="14" class="title">{escape(title)}</text>')
    for value in values:
        y = place(0, value).split(",")[1]
        label = f"{value:.0%}" if percent else f"{value:g}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{label}</text>')
    parts.append(f'<text x="{WIDTH - 12}" y="{HEIGHT - 8}" text-anchor="end">step {right:g}</text>')
    for index, (name, points) in enumerate(lines.items()):
        stroke = f'stroke="{COLOURS[index % len(COLOURS)]}"'
        if index >= len(COLOURS):  # colours come again, with dashes
            stroke += f' stroke-dasharray="{2 + 3 * (index // len(COLOURS))} 3"'
        around = bands.get(name, ())
        edge = [place(x, low) for x, low, _ in around] + [place(x, high) for x, _, high in reversed(around)]
        if edge:
            parts.append(f'<polygon points="{" ".join(edge)}" fill="{COLOURS[index % len(COLOURS)]}" opacity=".13"/>')
        path = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" {stroke} stroke-width="1.8"/>')
        if len(points) == 1:  # which makes no line
            x, y = path.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{COLOURS[index % len(COLOURS)]}"/>')
        parts.append(_named(name, index, stroke) if named else "")
    return "".join(parts) + "</svg>"


def ticks(low: float, high: float) -> list[float]:
    """Return four to eight round values, the first at or below `low`, the last at or above `high`."""
    high = high if high > low else low + 1
    least = (high - low) / 5
    unit = 10.0 ** floor(log10(least))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= least)
    return [step * n for n in range(floor(low / step), ceil(high / step) + 1)]


def _named(name: str, index: int, stroke: str) -> str:
    """Name of a line, in a row of its own below the chart."""
    y = HEIGHT + ROW * index
    sample = f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{y}" y2="{y}" {stroke} stroke-width="1.8"/>'
    return f'{sample}<text x="{LEFT + 30}" y="{y + 4}">{escape(name)}</text>'


def bars(title: str, values: Mapping[str, float]) -> str:
    """Return an SVG bar chart of named shares between 0 and 1."""
    height = TOP + 22 * len(values) + 8
    parts = [f'<svg viewBox="0 0 {WIDTH * 2} {height}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<text x="0" y="14" class="title">{escape(title)}</text>')
    for index, (name, value) in enumerate(values.items()):
        y = TOP + 22 * index
        parts.append(f'<text x="300" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="308" y="{y + 3}" width="{max(value, 0) * 500:.1f}" height="14" fill="{COLOURS[0]}"/>')
        parts.append(f'<text x="{314 + max(value, 0) * 500:.1f}" y="{y + 14}">{value:.1%}</text>')
    return "".join(parts) + "</svg>"
