"""Plots of designs as SVG: interaction of two keys of the grid, and cost against quality with the Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import isnan
from typing import NamedTuple

import numpy as np

from mmrnn.evaluation.reports.seed_statistics import SeedEstimate, of_combinations
from mmrnn.evaluation.reports.svg import COLOURS, ticks
from mmrnn.evaluation.sweeps.scores import Scores

LEFT, TOP, WIDTH, HEIGHT, ROW = 56, 26, 420, 220, 16


class Mark(NamedTuple):
    """Point of a plot: place across from 0 to 1, estimate, colour, whether it is filled, and a text beside it."""

    across: float
    estimate: SeedEstimate
    colour: str
    filled: bool = True
    text: str = ""


def interaction(split: str, scores: Scores, estimates: Mapping[str, SeedEstimate], group: str, by: str) -> str:
    """Return a plot of the mean over kinds for each option of two keys; parallel lines: they do not interact.

    The other keys are averaged over, with the same weight for each combination of their options.

    Args:
        split: of the scores.
        scores: on the split.
        estimates: of the mean over kinds, by design.
        group: key whose options stand side by side.
        by: key with a line for each of its options.
    """
    options, lines = (
        list(dict.fromkeys(run.options[key] for run in scores.runs if key in run.options)) for key in (group, by)
    )
    if len(options) < 2 or len(lines) < 2:
        return ""
    marks: list[list[Mark]] = []
    for number, line in enumerate(lines):
        found = ((place, _cell(scores, estimates, {group: option, by: line})) for place, option in enumerate(options))
        # Lines stand a little apart, so that their intervals do not hide each other.
        shift = 0.02 * (number - (len(lines) - 1) / 2)
        colour = COLOURS[number % len(COLOURS)]
        marks.append([Mark((place + 0.5) / len(options) + shift, one, colour) for place, one in found if one])
    names = [(COLOURS[number % len(COLOURS)], f"{by}={line}") for number, line in enumerate(lines)]
    below = [((place + 0.5) / len(options), option) for place, option in enumerate(options)]
    return _plot(f"{split}: {group} by {by}", marks, below, names)


def _cell(scores: Scores, estimates: Mapping[str, SeedEstimate], options: Mapping[str, str]) -> SeedEstimate | None:
    """Mean of the runs with some options; None: there is no such run."""
    places = [place for place, run in enumerate(scores.runs) if options.items() <= run.options.items()]
    if not places:
        return None
    designs = [scores.runs[place].design for place in places]
    if len({*designs}) == 1:
        return estimates[designs[0]]
    groups = [designs.index(design) for design in designs]
    return of_combinations(scores.resampled, np.eye(len(scores.runs))[places], groups).mean


def cost_and_quality(split: str, scores: Scores, estimates: Mapping[str, SeedEstimate]) -> str:
    """Return a plot of the mean over kinds against the mean seconds of a run, for every design.

    A line joins the designs of the Pareto front: no other one is at least as good and at least as fast. Their marks are
    filled.

    Args:
        split: of the scores.
        scores: on the split.
        estimates: of the mean over kinds, by design.
    """
    costs = {
        name: float(np.mean([float(scores.runs[place].result["seconds"]) for place in places]))
        for name, places in scores.designs().items()
    }
    if len(costs) < 2:
        return ""
    front = pareto_front({name: (cost, estimates[name].value) for name, cost in costs.items()})
    low, high = min(costs.values()), max(costs.values())
    place = {name: 0.06 + 0.88 * (cost - low) / ((high - low) or 1) for name, cost in costs.items()}
    order = sorted(costs, key=lambda name: -estimates[name].value)
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(order)}
    drawn = {
        name: Mark(place[name], estimates[name], colours[name], name in front, f"{number}")
        for number, name in enumerate(order, 1)
    }
    marks = [[drawn[name] for name in front], *([drawn[name]] for name in order if name not in front)]
    names = [
        (colours[name], f"{number}: {name}, {costs[name]:,.0f} s{', on the front' * (name in front)}")
        for number, name in enumerate(order, 1)
    ]
    below = [(0.06, f"{low:,.0f} s"), (0.94, f"{high:,.0f} s")] if high > low else [(0.06, f"{low:,.0f} s")]
    return _plot(f"{split}: quality against seconds of a run", marks, below, names)


def pareto_front(designs: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the designs that no other one beats, the cheapest first.

    Args:
        designs: cost and quality by name; one is beaten by another that is no worse in both, and better in one.
    """
    return sorted(
        (
            name
            for name, (cost, quality) in designs.items()
            if not any(
                other_cost <= cost and other >= quality and (other_cost, other) != (cost, quality)
                for other_cost, other in designs.values()
            )
        ),
        key=lambda name: designs[name][0],
    )


def _plot(
    title: str,
    lines: Sequence[Sequence[Mark]],
    below: Sequence[tuple[float, str]],
    names: Sequence[tuple[str, str]],
) -> str:
    """Plot of marks with their intervals, joined along each line.

    Args:
        title: of the plot.
        lines: marks of each line; the share goes up.
        below: place across, and text, of what stands below the plot.
        names: colour and text of the rows of the legend.
    """
    ends = [end for line in lines for mark in line for end in mark.estimate[:3] if not isnan(end)]
    shown = ticks(min(ends) - 0.005, max(ends) + 0.005)
    low, high = shown[0], shown[-1]

    def down(share: float) -> float:
        return TOP + HEIGHT * (high - share) / (high - low)

    full = TOP + HEIGHT + 24 + ROW * len(names)
    parts = [f'<svg viewBox="0 0 {LEFT + WIDTH + 12} {full}" role="img" aria-label="{escape(title)}">']
    parts.append(f'<text x="0" y="14" class="title">{escape(title)}</text>')
    for share in shown:
        y = f"{down(share):.1f}"
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{share * 100:g}%</text>')
    for across, text in below:
        x, y = f"{LEFT + WIDTH * across:.1f}", TOP + HEIGHT + 16
        parts.append(f'<text x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>')
    for line in lines:
        path = " ".join(f"{LEFT + WIDTH * mark.across:.1f},{down(mark.estimate.value):.1f}" for mark in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line[0].colour if line else ""}"/>')
        parts += [_mark(mark, LEFT + WIDTH * mark.across, down) for mark in line]
    for number, (colour, text) in enumerate(names):
        y = TOP + HEIGHT + 36 + ROW * number
        parts.append(f'<circle cx="{LEFT + 6}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 16}" y="{y}">{escape(text)}</text>')
    return f'<div style="max-width: 36rem">{"".join(parts)}</svg></div>'


def _mark(mark: Mark, x: float, down: Callable[[float], float]) -> str:
    """Circle of an estimate, with a bar of its interval where it has one."""
    one, bar = mark.estimate, ""
    if not isnan(one.low):
        ends = f'y1="{down(one.low):.1f}" y2="{down(one.high):.1f}"'
        bar = f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="{mark.colour}" stroke-width="2" opacity=".5"/>'
    fill = mark.colour if mark.filled else "white"
    place = f'cx="{x:.1f}" cy="{down(one.value):.1f}"'
    text = f'<text x="{x + 8:.1f}" y="{down(one.value) + 4:.1f}">{escape(mark.text)}</text>' if mark.text else ""
    return f'{bar}<circle {place} r="4.5" fill="{fill}" stroke="{mark.colour}" stroke-width="1.5"/>{text}'
