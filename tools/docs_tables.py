"""Tables of what there is to choose: presets with their parts, recipes with their stages, formats of weights.

They repeat the cards and the code: `docs_site.py` writes them when the documentation is built, and they are never
committed.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from mmrnn import conf_dir
from mmrnn.cli.list import about
from mmrnn.weights.registry import FORMATS

PARTS = ("encoder", "connector", "backbone", "prompt")
"""Groups that have a column in the table of presets."""

Rows = list[tuple[str, ...]]


def table(head: tuple[str, ...], rows: Rows) -> str:
    """Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def link(card: Path) -> str:
    """Link to the section of a card in the page of its group."""
    return f"[`{card.stem}`](#{card.stem})"


def cards(group: str) -> Iterator[tuple[Path, dict]]:
    """Every card of a group, and its content."""
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        yield path, yaml.safe_load(path.read_text(encoding="utf-8"))


def choices(content: dict) -> dict[str, str]:
    """Group -> option that a preset or recipe chooses."""
    return {key.removeprefix("override /"): name for entry in content["defaults"] for key, name in entry.items()}


def presets() -> str:
    """Table of presets: the cards that each chooses."""
    rows = []
    for path, content in cards("model"):
        chosen = choices(content)
        besides = {f"{group}={name}": group for group, name in chosen.items() if group not in (*PARTS, "tokenizer")}
        named = ", ".join(f"`{one}`" for one in besides if one != "scan=forward")
        rows.append((link(path), *(f"`{chosen[group]}`" for group in PARTS), named))
    return table(("model", *PARTS, "besides"), rows)


def designs() -> str:
    """Table of recipes of several stages, and the recipe of each stage."""
    rows = []
    for path, content in cards("recipe"):
        if stages := content.get("stages"):
            named = ", ".join(f"{name}: [`{stage['recipe']}`](#{stage['recipe']})" for name, stage in stages.items())
            rows.append((link(path), about(path), named))
    return table(("recipe", "description", "stages"), rows)


def stages() -> str:
    """Table of recipes of one stage: data, trained parts, rates, lengths."""
    rows = []
    for path, content in cards("recipe"):
        if "stages" in content:
            continue
        [stage] = content["stage"].values()
        trains = ", ".join(f"`{pattern}`" for pattern in stage["train"])
        trains += "".join(f", not `{pattern}`" for pattern in stage["freeze"])
        first, last = stage["lr"], content["schedule"]["min_lr"]
        rate = f"{first:g}" + (f" to {last:g}" if last != first else "")
        sizes = str(stage["batch_size"]), str(stage["steps"])
        rows.append((link(path), about(path), f"`{choices(content)['data']}`", trains, rate, *sizes))
    return table(("recipe", "description", "data", "trains", "learning rate", "samples a step", "steps"), rows)


def formats() -> str:
    """Table of the formats of published weights, by the class of the part that they hold."""
    rows = []
    for part in dict.fromkeys(form.part_name for form in FORMATS):
        own = [form for form in FORMATS if form.part_name == part]
        opened, written = (
            ", ".join(dict.fromkeys(f"`{form.name}`" for form in some))
            for some in (own, [form for form in own if form.writable])
        )
        rows.append((f"`{part}`", opened, written))
    return table(("part", "opened", "opened and written"), rows)


def formats_page() -> str:
    """Page with the table of formats."""
    return f"""# Formats of weights

Formats that `mmrnn.weights.load` opens and `mmrnn convert` writes, by the class of the part. `model` stands for whole
models and modalities. `mmrnn`, the names of this project, is a format of every part. [Weights](weights.md) says how a
format is recognised.

{formats()}
"""
