"""Plots of the cost of a token over the context length, and of a frame over the minutes of a video."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.bench.timing import BenchConfig, Row, Unavailable, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(folder: Path, rows: Sequence[Row], config: BenchConfig) -> list[Path]:
    """Plot what was measured at several places: `decode.png` and `headline.png` over the context, `stream.png` over the
    minutes watched.

    Returns:
        The files written, none without such rows.
    """
    decode = [row for row in rows if row.part == "decode" and row.context is not None]
    headline = [row for row in rows if row.part == "headline" and row.context is not None]
    stream = [row for row in rows if row.minutes is not None]
    if not decode and not stream and not headline:
        return []
    try:
        require("matplotlib")
    except Unavailable as reason:
        config.skipped.append(f"plots: {reason}")
        return []
    figures = {}
    if decode:
        lines = group(decode)
        times = {name: [(row.context, row.seconds * 1e3) for row in own] for name, own in lines.items()}
        sizes = {name: [(row.context, row.megabytes) for row in own] for name, own in lines.items()}
        figures["decode"] = draw("context (tokens)", {"ms per token": times, "MB of state or cache": sizes})
    if stream:
        lines = group(stream, [f"{row.name}, {row.case.split()[0]}" for row in stream])
        rates = {name: [(row.minutes, 1 / row.seconds) for row in own] for name, own in lines.items()}
        sizes = {name: [(row.minutes, row.megabytes) for row in own] for name, own in lines.items()}
        figures["stream"] = draw("minutes watched", {"frames a second": rates, "MB of state or cache": sizes})
    if headline:
        firsts = group([row for row in headline if row.megabytes is None])
        tokens = group([row for row in headline if row.megabytes is not None])
        waits = {name: [(row.context, row.seconds) for row in own] for name, own in firsts.items()}
        times = {name: [(row.context, row.seconds * 1e3) for row in own] for name, own in tokens.items()}
        sizes = {name: [(row.context, row.megabytes) for row in own] for name, own in tokens.items()}
        charts = {"s to the first token": waits, "ms per token": times, "MB of weights and state": sizes}
        figures["headline"] = draw("context (tokens)", charts)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
    return [folder / f"{name}.png" for name in figures]


def group(rows: Sequence[Row], names: Sequence[str] | None = None) -> dict[str, list[Row]]:
    """Return the rows of each name; `names`: others than those of the rows."""
    lines: dict[str, list[Row]] = {}
    for row, name in zip(rows, names or [row.name for row in rows], strict=True):
        lines.setdefault(name, []).append(row)
    return lines


def draw(x: str, charts: dict[str, dict[str, list[tuple[float, float]]]]) -> "Figure":
    """Draw charts beside each other, on logarithmic axes: title -> name of a line -> its points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(charts), 4), layout="constrained")
    for axis, (title, lines) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        for name, points in lines.items():
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel=x, title=title)
        axis.grid(which="both", alpha=0.3)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=2)
    return figure
