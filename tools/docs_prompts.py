"""Table of prompts by how they write a further turn of a dialogue, and the question before an image.

It is computed from the prompts themselves: `docs_cards.py` writes it into the page of their cards when the
documentation is built.
"""

from collections.abc import Callable, Sequence
from typing import Any

import yaml
from docs_tables import table

from mmrnn import conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.prompts import PrefixLM
from mmrnn.types import Prompt, Span, Turn


def read_card(group: str, name: str) -> dict[str, Any]:
    """Content of a card, with that of the cards that it inherits."""
    own = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    parents = [parent for parent in own.pop("defaults", []) if isinstance(parent, str) and parent != "_self_"]
    merged: dict[str, Any] = {}
    for each in (*(read_card(group, parent) for parent in parents), own):
        asking = {**(merged.get("asking") or {}), **(each.get("asking") or {})}
        merged |= each | ({"asking": asking} if asking else {})
    return merged


def written(write: Callable[[Sequence[Turn], int], list[Span]], turns: Sequence[Turn]) -> str:
    """Text of a dialogue about one image, which is written as `@`."""
    return "".join("@" if span.image else span.text for span in write(turns, 1))


def further_turn(prompt: Prompt) -> str:
    """Class of a prompt by how it writes a further turn."""
    if isinstance(prompt, PrefixLM):
        return "no dialogue"
    asked = [Turn("user", "<image>\none"), Turn("assistant", "")]
    later = [asked[0], Turn("assistant", "two"), Turn("user", "three"), Turn("assistant", "")]
    if written(prompt.spans, later) != written(prompt.appended_spans, later):
        return "rewrites"
    same = written(prompt.spans, later).startswith(written(prompt.spans, asked))
    return "continues" if same else "reads the reply again"


def is_shared(prompt: Prompt) -> bool:
    """Return True where two first questions have the same text up to the image."""
    first, second = (
        written(prompt.appended_spans, [Turn("user", f"<image>\n{question}"), Turn("assistant", "")])
        for question in ("one", "two")
    )
    return first.partition("@")[0] == second.partition("@")[0]


def turns() -> str:
    """Table of all prompts."""
    rows = []
    for path in sorted((conf_dir() / "prompt").glob("*.yaml")):
        prompt = instantiate(read_card("prompt", path.stem))
        rows.append((f"[`{path.stem}`](#{path.stem})", further_turn(prompt), "yes" if is_shared(prompt) else "no"))
    return table(("prompt", "a further turn", "the state behind the image is shared"), rows)
