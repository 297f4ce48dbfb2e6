"""Report of a run: one self-contained HTML file with curves, tables and images."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from mmrnn.checkpoints.config_file import to_yaml
from mmrnn.evaluation.accuracy import Answer
from mmrnn.evaluation.reports.run_settings import differing_choices, differing_settings
from mmrnn.evaluation.reports.section import html_table
from mmrnn.evaluation.reports.svg import Points, chart
from mmrnn.evaluation.reports.thumbnails import data_url
from mmrnn.io.atomic import replace_file
from mmrnn.types import MapDataset

MAX_EXAMPLES = 16
"""Most examples of each split in a report."""

THROUGHPUT = {
    "tokens_per_second": ("tokens per second, without padding", "{:,.0f}"),
    "samples_per_second": ("samples per second", "{:,.3g}"),
    "images_per_second": ("images per second", "{:,.3g}"),
    "padding": ("padding", "{:.1%}"),
    "data_wait": ("waiting for data", "{:.1%}"),
    "tflops": ("TFLOPS a device", "{:.3g}"),
    "mfu": ("model FLOPs utilisation", "{:.1%}"),
    "peak_memory_gib": ("peak memory of a process, GiB", "{:.2f}"),
}
"""Figures of the log that the report shows: label and format."""

SHARES = ("accuracy", "chance", "majority", "blind")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937 }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
td, th { padding: .2rem .8rem; border-bottom: 1px solid #e5e7eb }
td.n { text-align: right; font-variant-numeric: tabular-nums } th { text-align: left }
.charts { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: start } .charts h2 { margin: 0 }
svg { width: 29rem; max-width: 100%; font: 11px system-ui, sans-serif } svg.wide { width: 100% }
.title { font-weight: 600; font-size: 13px } .grid { stroke: #e5e7eb } svg text { fill: #374151 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { width: 100%; border-radius: 6px } figcaption { font-size: 13px }
.right { color: #166534 } .wrong { color: #b91c1c } pre { background: #f3f4f6; padding: 1rem; overflow: auto }
"""


def write_report(
    out: Path,
    result: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    tests: Mapping[str, MapDataset],
    answers: Mapping[str, Sequence[Answer]],
    cfg: Mapping[str, Any],
) -> None:
    """Write `report.html` into the folder of a run.

    Args:
        out: folder of the run.
        result: of the run (`result.json`).
        log: records of training (`log.jsonl`).
        tests: evaluation splits by name.
        answers: replies to the samples of each split.
        cfg: configuration of the run.
    """
    accuracy = {
        name: [(record["step"], record["accuracy"][name]) for record in log if "accuracy" in record] for name in tests
    }
    parts = [
        f"<h1>{escape(out.name)}</h1>",
        f"<p>{result['parameters']:,} parameters, {result['seconds']:.0f} s, seed {result['seed']}, last loss "
        f"{result['loss']:.3f}.</p>",
        _differences(cfg, result["choices"]),
        _left_out(result),
        "<div class=charts>",
        chart("loss", {"loss": [(record["step"], record["loss"]) for record in log]}),
        _accuracy_chart(accuracy),
        f"{_throughput(log)}</div>",
        *(_table(name, kinds) for name, kinds in result["accuracy"].items()),
        *(_cards(name, tests[name], answers[name]) for name in tests),
        f"<h2>Configuration</h2><details><summary>all settings</summary><pre>{escape(to_yaml(cfg))}</pre></details>",
    ]
    page = (
        f'<!doctype html><meta charset="utf-8"><title>{escape(out.name)}</title><style>{STYLE}</style>{"".join(parts)}'
    )
    replace_file(out / "report.html", lambda path: path.write_text(page, encoding="utf-8"))


def _differences(cfg: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """Choices other than the default ones, and settings other than those of the chosen cards; empty: none."""
    chosen, settings = differing_choices(choices), differing_settings(cfg, choices)
    unknown = "<p>Some cards are not among those of mmrnn, so that settings are not compared.</p>"
    tables = [
        f"<h2>{title}</h2>{html_table([what, 'this run', other], [[name, *pair] for name, pair in found.items()])}"
        for title, what, other, found in (
            ("Choices", "group", "default", chosen),
            ("Settings", "setting", "of the cards", settings or {}),
        )
        if found
    ]
    return "".join(tables) + (unknown if settings is None else "")


def _accuracy_chart(accuracy: Mapping[str, Points]) -> str:
    """Chart of the evaluations during training; empty: there was one at most, which makes no line."""
    lines = {name: points for name, points in accuracy.items() if len(points) > 1}
    return chart("held-out accuracy, first questions of each split", lines, percent=True)


def _throughput(log: Sequence[Mapping[str, Any]]) -> str:
    """Medians of what was measured between the records of the log; empty: nothing was."""
    found: dict[str, list[float]] = {}
    for record in log:
        for name, value in record.get("measured", {}).items():
            found.setdefault(name, []).append(value)
    rows = "".join(
        f"<tr><td>{label}</td><td class=n>{form.format(median(found[name]))}</td></tr>"
        for name, (label, form) in THROUGHPUT.items()
        if name in found
    )
    note = "<p>Medians of the records of the log.</p>"
    return f"<div><h2>Throughput</h2><table>{rows}</table>{note}</div>" if rows else ""


def _left_out(result: Mapping[str, Any]) -> str:
    """Samples and steps that were left out, by reason; empty: none."""
    skipped = result["skipped_steps"]
    skipped_steps = f"<p>{skipped} steps were skipped: their loss or gradient was not finite.</p>" if skipped else ""
    places = {"records of the data": result["left_out"]["records"], "training": result["left_out"]["train"]}
    places |= {f"held out: {name}": record for name, record in result["left_out"]["held_out"].items()}
    rows = "".join(
        f"<tr><td>{escape(place)}</td><td class=n>{row['samples']}</td><td>{escape(reason)}</td>"
        f"<td>{escape(row['first'])}</td></tr>"
        for place, record in places.items()
        for reason, row in record["reasons"].items()
    )
    head = "<tr><th>where<th>times<th>reason<th>first</tr>"
    return skipped_steps + (f"<h2>Left out</h2><table>{head}{rows}</table>" if rows else "")


def _table(name: str, kinds: Mapping[str, Mapping[str, float]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(kind)}</td>{''.join(f'<td class=n>{row[name]:.1%}</td>' for name in SHARES)}"
        f"<td class=n>{row['total']}</td></tr>"
        for kind, row in kinds.items()
    )
    return (
        f"<h2>Held out: {escape(name)}</h2><table><tr><th>question<th>accuracy<th>chance<th>majority answer<th>blind"
        f"<th>questions</tr>{rows}</table><p>Chance: one of the answers to such questions. Blind: the most "
        "frequent answer that training gave to the very same question.</p>"
    )


def _cards(name: str, samples: MapDataset, answers: Sequence[Answer]) -> str:
    figures = []
    for index in range(min(MAX_EXAMPLES, len(answers))):
        answer, sample = answers[index], samples[answers[index].index]
        image = f'<img alt="" src="{data_url(sample.images[0], side=256, form="PNG")}">' if sample.images else ""
        truth = "" if answer.right else f" (truth: {escape(answer.truth)})"
        mark, sign = ("right", "&check;") if answer.right else ("wrong", "&cross;")
        figures.append(
            f"<figure>{image}<figcaption>{escape(answer.question)}<br>"
            f"<b class={mark}>{sign} {escape(answer.reply) or '(nothing)'}</b>{truth}</figcaption></figure>"
        )
    return f"<h2>Examples: {escape(name)}</h2><div class=cards>{''.join(figures)}</div>"
