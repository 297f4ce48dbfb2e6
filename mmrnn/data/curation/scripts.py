"""Writing systems of a text: the share of its letters that belong to some of them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from mmrnn.io.optional import require


def letter_share(text: str, scripts: Sequence[str]) -> float:
    """Return the share of the letters of a text that belong to scripts, 0 to 1; 0 where the text has no letters.

    Args:
        text: in NFC or not; marks are no letters.
        scripts: names of Unicode's property Script: `latin`, `han`, `hiragana`, `cyrillic`, ...

    Raises:
        ValueError: there is no such script.
        ImportError: `regex` is not installed.
    """
    found, letters = (len(pattern.findall(text)) for pattern in (_pattern(*scripts), _pattern()))
    return found / letters if letters else 0.0


@cache
def _pattern(*scripts: str) -> Any:
    """Pattern of a letter of any of the scripts; without scripts, of any letter."""
    regex = require("regex", "regex", wanted_by="the share of a script", extra="curation")
    if unknown := [script for script in scripts if not _is_known(script)]:
        raise ValueError(f"{unknown[0]!r} is no script of Unicode; there are latin, han, hiragana, cyrillic, ...")
    inside = "".join(rf"\p{{Script={script}}}" for script in scripts)
    return regex.compile(rf"[\p{{L}}&&[{inside}]]" if scripts else r"\p{L}", regex.V1)


def _is_known(script: str) -> bool:
    import regex

    try:
        return script.isidentifier() and bool(regex.compile(rf"\p{{Script={script}}}"))
    except regex.error:
        return False
