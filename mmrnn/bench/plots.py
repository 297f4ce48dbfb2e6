"""Plot of the time per token and of the memory over the context length."""

from collections.abc import Sequence
from pathlib import Path

from mmrnn.bench.timing import BenchConfig, Row, Unavailable, require


def plot(path: Path, rows: Sequence[Row], config: BenchConfig) -> list[Path]:
    """Plot the rows that have a context, on logarithmic axes; return the written files, none without such rows."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row.context is not None:
            lines.setdefault(row.name, []).append(row)
    if not lines:
        return []
    try:
        require("matplotlib")
    except Unavailable as reason:
        config.skipped.append(f"plots: {reason}")
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    time_axis, memory_axis = figure.subplots(1, 2)
    for name, own in lines.items():
        contexts = [row.context for row in own]
        time_axis.plot(contexts, [row.seconds * 1e3 for row in own], marker="o", label=name)
        memory_axis.plot(contexts, [row.megabytes for row in own], marker="o", label=name)
    for axis, title in ((time_axis, "ms per token"), (memory_axis, "MB of state or cache")):
        axis.set(xscale="log", yscale="log", xlabel="context (tokens)", title=title)
        axis.grid(which="both", alpha=0.3)
    time_axis.legend()
    figure.savefig(path, dpi=120)
    return [path]
