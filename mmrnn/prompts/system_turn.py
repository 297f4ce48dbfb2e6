"""System turn of a dialogue."""

from collections.abc import Sequence

from mmrnn.types import Turn


def split_system(turns: Sequence[Turn]) -> tuple[str | None, Sequence[Turn]]:
    """Return the text of the system turn that begins a dialogue, None if there is none, and the other turns."""
    return (turns[0].text, turns[1:]) if turns and turns[0].role == "system" else (None, turns)
