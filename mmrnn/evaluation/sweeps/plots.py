"""Plots of a sweep as SVG: dots for every run beside interval bars, and learning curves with the range over seeds."""

from collections.abc import Mapping, Sequence
from html import escape
from math import isnan
from typing import Any

from mmrnn.evaluation.reports.seed_statistics import SeedEstimate
from mmrnn.evaluation.reports.svg import COLOURS, chart, ticks
from mmrnn.evaluation.sweeps.scores import SweepRun

ROW, TOP, BOTTOM, LETTER = 24, 26, 26, 6.4
PLOT = 420
"""Width of the plot beside its labels."""


def dots(title: str, figures: Mapping[str, Sequence[float]], estimates: Mapping[str, SeedEstimate]) -> str:
    """Return a panel: a row for every design, the highest mean first, with a dot for every run and a bar of its mean.

    Args:
        title: of the panel.
        figures: share of right answers of every run, by design.
        estimates: of the mean of every design.
    """
    names = sorted(figures, key=lambda name: -estimates[name].value)
    ends = [end for name in names for end in (*estimates[name][:3], *figures[name]) if not isnan(end)]
    shown = ticks(min(ends) - 0.005, max(ends) + 0.005)
    low, high = shown[0], shown[-1]
    left = 12 + LETTER * max(map(len, names))
    width, height = left + PLOT + 70, TOP + ROW * len(names) + BOTTOM

    def across(share: float) -> float:
        return left + PLOT * (share - low) / (high - low)

    parts = [_begin(title, width, height)]
    for share in shown:
        x = f"{across(share):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{height - BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{share * 100:g}%</text>')
    for number, name in enumerate(names):
        one, y = estimates[name], TOP + ROW * (number + 0.5)
        parts.append(f'<text x="{left - 8:.1f}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if not isnan(one.low):
            begin, end = across(one.low), across(one.high)
            parts.append(f'<rect x="{begin:.1f}" y="{y - 4}" width="{end - begin:.1f}" height="8" fill="#bcd3e8"/>')
        parts += [
            f'<circle cx="{across(share):.1f}" cy="{y}" r="3.5" fill="{COLOURS[0]}" fill-opacity=".55"/>'
            for share in figures[name]
        ]
        x = f"{across(one.value):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{y - 8}" y2="{y + 8}" stroke="{COLOURS[1]}" stroke-width="2"/>')
        parts.append(f'<text x="{left + PLOT + 8:.1f}" y="{y + 4}">{one.value:.1%}</text>')
    return "".join(parts) + "</svg>"


def learning_curves(runs: Sequence[SweepRun]) -> str:
    """Return charts of the loss and of the held-out accuracy while training: the mean over seeds, and their range."""
    splits = dict.fromkeys(split for run in runs for record in run.log for split in _accuracy(record))
    charts = [_curves("loss", runs, None)]
    charts += [_curves(f"{split}: accuracy while training", runs, split) for split in splits]
    shown = "".join(f'<div style="max-width: 36rem">{one}</div>' for one in charts if one)
    return f"<p>Mean over seeds, and range.{shown}" if shown else ""


def _curves(title: str, runs: Sequence[SweepRun], split: str | None) -> str:
    lines: dict[str, list[tuple[int, float]]] = {}
    bands: dict[str, list[tuple[int, float, float]]] = {}
    for design in dict.fromkeys(run.design for run in runs):
        logs = [_points(run, split) for run in runs if run.design == design]
        steps = sorted(set(logs[0]).intersection(*logs[1:]))
        every = [(step, [log[step] for log in logs]) for step in steps]
        lines[design] = [(step, sum(values) / len(values)) for step, values in every]
        bands[design] = [(step, min(values), max(values)) for step, values in every]
    return chart(title, lines, percent=split is not None, bands=bands)


def _points(run: SweepRun, split: str | None) -> dict[int, float]:
    if split is None:
        return {record["step"]: record["loss"] for record in run.log}
    found = ((record["step"], _accuracy(record).get(split)) for record in run.log)
    return {step: share for step, share in found if isinstance(share, int | float)}


def _accuracy(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Accuracy by split of a record of training; empty: it was not measured there."""
    found = record.get("accuracy")
    return found if isinstance(found, dict) else {}


def _begin(title: str, width: float, height: float) -> str:
    return (
        f'<svg class="wide" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width: {width * 1.3:.0f}px" role="img" '
        f'aria-label="{escape(title)}"><text x="0" y="14" class="title">{escape(title)}</text>'
    )
