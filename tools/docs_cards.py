"""Pages with a table of every group of cards: options, descriptions, knobs with their defaults.

One Markdown page for each group, and an index. They repeat the cards: `docs_site.py` writes them when the documentation
is built, and they are never committed.
"""

from collections.abc import Iterator
from pathlib import Path

import docs_prompts
import yaml
from docs_tables import designs, presets, stages, table

from mmrnn import conf_dir
from mmrnn.cli.list import options

GLOBAL = ("model", "recipe")
"""Groups whose cards choose cards of other groups and set nothing below their own name."""


def knobs(node: yaml.Node, lines: list[str], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Path, value and comment of every knob below a node of a card."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from knobs(item, lines, f"{path}{index}.")
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value in ("_partial_", "defaults") or (key.value == "_target_" and not path):
            continue
        nested = isinstance(value, yaml.CollectionNode) and not value.flow_style
        column = key.end_mark.column if nested else value.end_mark.column
        comment = lines[value.end_mark.line if not nested else key.start_mark.line][column:].partition("#")[2].strip()
        text = "" if nested else value.start_mark.buffer[value.start_mark.pointer : value.end_mark.pointer]
        if comment or not nested:
            yield f"{path}{key.value}", " ".join(text.split()), comment
        if nested:
            yield from knobs(value, lines, f"{path}{key.value}.")


def bases(content: dict) -> list[str]:
    """Cards that a card inherits or chooses."""
    entries = [one if isinstance(one, dict) else {"": one} for one in content.get("defaults", ())]
    chosen = [(key.removeprefix("override ").lstrip("/"), name) for one in entries for key, name in one.items()]
    return [f"{key}={name}" if key else name for key, name in chosen if name != "_self_"]


def section(card: Path, about: str) -> str:
    """Heading, description and table of knobs of one card."""
    text = card.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    facts = [f"Class: `{content['_target_']}`."] if "_target_" in content else []
    facts += [f"From {', '.join(f'`{one}`' for one in bases(content))}."] if bases(content) else []
    rows = [
        (f"`{name}`", f"`{value}`" if value else "", comment)
        for name, value, comment in knobs(yaml.compose(text), text.splitlines())
    ]
    listed = [table(("knob", "default", "meaning"), rows)] if rows else []
    return "\n\n".join([f"## `{card.stem}`", about, *([" ".join(facts)] if facts else []), *listed])


def overview(group: str, cards: dict[str, str]) -> list[str]:
    """Tables that list the cards of a group.

    Args:
        group: of cards.
        cards: option -> description.
    """
    if group == "model":
        return [presets()]
    if group == "recipe":
        return ["Whole designs, in several stages:", designs(), "Single stages:", stages()]
    listed = table(("option", "description"), [(f"[`{name}`](#{name})", about) for name, about in cards.items()])
    if group == "prompt":
        return [
            listed,
            "The terms of this table are those of [States and conversations](../state.md).",
            docs_prompts.turns(),
        ]
    return [listed]


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of every page."""
    groups = options()
    rows = [(f"[{group}]({group}.md)", str(len(cards))) for group, cards in groups.items()]
    yield "index.md", f"# Groups of cards\n\n{table(('group', 'options'), rows)}\n"
    for group, cards in groups.items():
        usage = f"`{group}=OPTION` takes a card" + ("." if group in GLOBAL else f", `{group}.KNOB=VALUE` sets a knob.")
        sections = [section(conf_dir() / group / f"{name}.yaml", about) for name, about in cards.items()]
        yield f"{group}.md", "\n\n".join([f"# {group}", usage, *overview(group, cards), *sections]) + "\n"
