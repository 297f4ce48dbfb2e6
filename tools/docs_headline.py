"""Figures of `mmrnn bench headline` in the documentation: stored once, shown as tables and as a chart.

mmrnn bench headline                             # measures; writes bench/bench.json
python tools/docs_headline.py bench/bench.json   # stores the measured rows in docs/headline.csv, and does the next
python tools/docs_headline.py                    # the tables of docs/benchmarks.md, and docs/images/headline.svg
"""

import argparse
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from docs_tables import table
from drawings.chart import Axes, legend
from drawings.svg import Drawing

DOCS = Path(__file__).parents[1] / "docs"
PAGE, STORED, CHART = DOCS / "benchmarks.md", DOCS / "headline.csv", DOCS / "images" / "headline.svg"
BASE = "LLaVA-1.5"
"""Model that the others are compared with."""


@dataclass(frozen=True)
class Figures:
    """Figures of one model after one context, as they are printed; empty: there is none.

    Attributes:
        context: positions before the token.
        model: name.
        token_ms: milliseconds of a token.
        megabytes: of weights and cache or state.
        token_ratio: median of (time of a token of `BASE` / time of a token of this model).
        prompt_s: seconds until the first token.
        prompt_ratio: first token of `BASE` over that of this model.
    """

    context: int
    model: str
    token_ms: str
    megabytes: str
    token_ratio: str
    prompt_s: str
    prompt_ratio: str


def rounded(value: float) -> str:
    """Number as it is printed: two digits behind the point below 1, one below 100, none above."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ratio(speedup: Mapping[str, float]) -> str:
    """Multiple of the speed of `BASE`; empty: it was not measured beside."""
    if BASE not in speedup:
        return ""
    return f"{speedup[BASE]:.1f}" if speedup[BASE] < 10 else f"{speedup[BASE]:.0f}"


def measured(bench: Mapping[str, Any]) -> list[Figures]:
    """Figures of a `bench.json`.

    Raises:
        ValueError: it has no measured rows of `headline`, or is of a quick run, whose times mean nothing.
    """
    rows = [row for row in bench["rows"] if row["part"] == "headline" and not row["computed"]]
    if bench["quick"] or not rows:
        raise ValueError("there are no figures to store; run `mmrnn bench headline` without --quick")
    # Of each model and context there are two rows: the first token, without memory, and a token.
    prompts = {(row["context"], row["name"]): row for row in rows if row["megabytes"] is None}
    tokens = {(row["context"], row["name"]): row for row in rows if row["megabytes"] is not None}
    return [
        Figures(
            *key,
            rounded(token["seconds"] * 1e3),
            f"{token['megabytes']:.0f}",
            ratio(token["speedup"]),
            rounded(prompts[key]["seconds"]),
            ratio(prompts[key]["speedup"]),
        )
        for key, token in tokens.items()
    ]


def store(found: Iterable[Figures]) -> None:
    """Write `docs/headline.csv`."""
    with STORED.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Figures))
        writer.writerows(map(astuple, found))


def stored() -> list[Figures]:
    """Read `docs/headline.csv`."""
    with STORED.open(encoding="utf-8", newline="") as file:
        return [Figures(**{**row, "context": int(row["context"])}) for row in csv.DictReader(file)]


def models(found: Sequence[Figures]) -> list[str]:
    """Names of the models, in their order."""
    return list(dict.fromkeys(one.model for one in found))


def length(context: int) -> str:
    """Number of positions in words: `24,576`, `103K (105,472)`."""
    return f"{context:,}" if context < 100_000 else f"{context // 1024}K ({context:,})"


def by_context(found: Sequence[Figures], head: str, cell: str, ratio: str) -> str:
    """Table with a row for each context.

    Args:
        found: figures.
        head: of the first column.
        cell: format of a cell, over the names of `Figures`.
        ratio: name of the ratio in the last column.
    """
    names, rows = models(found), []
    for context in dict.fromkeys(one.context for one in found):
        own = {one.model: one for one in found if one.context == context}
        cells = [cell.format(**vars(own[name])) if name in own else "" for name in names]
        ratios = [vars(own[name])[ratio] for name in names if name in own and name != BASE]
        rows.append((length(context), *cells, ", ".join(filter(None, ratios))))
    return table((head, *names, f"times {BASE}"), rows)


def tables(found: Sequence[Figures]) -> dict[str, str]:
    """Name -> table of the page."""
    return {
        "tokens": by_context(found, "a token after", "{token_ms} ms, {megabytes} MB", "token_ratio"),
        "prompts": by_context(found, "first token of a prompt of", "{prompt_s} s", "prompt_ratio"),
    }


def with_tables(page: str, found: Sequence[Figures]) -> str:
    """Return the page with its tables made anew."""
    for name, text in tables(found).items():
        begin, end = f"<!-- {name}, written by tools/docs_headline.py -->\n", f"<!-- end of {name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}{text}\n{end}{rest.split(end)[1]}"
    return page


def chart(found: Sequence[Figures]) -> str:
    """Return the chart of a token and of memory against the context, as SVG."""
    names = models(found)
    drawing = Drawing(
        1000,
        392,
        "Cost of a token against the context",
        "Milliseconds of a token, and megabytes of weights and cache or state, against the positions before it. "
        + "; ".join(f"{name}: {', '.join(spoken(found, name))}" for name in names),
    )
    legend(drawing, 64, 30, names)
    contexts = {1024 * 4**n: f"{4**n}K" for n in range(5)}
    ticks = {
        "token_ms": ("milliseconds of a token", (2, 5, 10, 20, 50, 100)),
        "megabytes": ("MB of weights and cache or state", (20, 50, 100, 200, 250)),
    }
    for at, (field, (title, values)) in enumerate(ticks.items()):
        left = 64 + at * 490
        drawing.text(left, 72, title, size=15, style="bold", anchor="start")
        axes = Axes(drawing, (left, 88, left + 420, 330), contexts, {value: f"{value}" for value in values})
        for index, name in enumerate(names):
            axes.line(index, [(one.context, float(vars(one)[field])) for one in found if one.model == name])
        drawing.text(left + 210, 374, "context (positions)", size=13, fill="faint")
    return str(drawing)


def spoken(found: Sequence[Figures], model: str) -> list[str]:
    """First and last figures of a model in words."""
    own = [one for one in found if one.model == model]
    return [f"{one.token_ms} ms and {one.megabytes} MB after {one.context:,}" for one in (own[0], own[-1])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Store, and write tables and chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", nargs="?", type=Path, help="bench.json of `mmrnn bench headline`, to be stored")
    options = parser.parse_args(arguments)
    if options.bench is not None:
        store(measured(json.loads(options.bench.read_text(encoding="utf-8"))))
    found = stored()
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    CHART.write_text(chart(found), encoding="utf-8")


if __name__ == "__main__":
    main()
