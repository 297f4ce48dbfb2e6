"""Time and memory of a token over the context, as an image."""

from collections.abc import Sequence
from pathlib import Path

from mmrnn.bench.timing import BenchConfig, Missing, Row, need


def draw(path: Path, rows: Sequence[Row], effort: BenchConfig) -> list[Path]:
    """Write the curves of the rows that have a context, with both axes logarithmic; nothing where there are none."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row.context is not None:
            lines.setdefault(row.who, []).append(row)
    try:
        if lines:
            need("matplotlib")
    except Missing as reason:
        effort.left_out.append(f"curves: {reason}")
        return []
    if not lines:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for who, own in lines.items():
        contexts = [row.context for row in own]
        axes[0].plot(contexts, [row.seconds * 1e3 for row in own], marker="o", label=who)
        axes[1].plot(contexts, [row.megabytes for row in own], marker="o", label=who)
    for side, title in zip(axes, ("ms a token", "MB of state or cache"), strict=True):
        side.set(xscale="log", yscale="log", xlabel="tokens read before", title=title)
        side.grid(which="both", alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)
    return [path]
