"""Parameters by part, by glob and by layer."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

LAYER = re.compile(r"\.(?:blocks|layers|resblocks)\.(\d+)\.")
"""Where the name of a parameter says which layer it belongs to."""


def layer_distance(names: Sequence[str], part: str) -> dict[str, int]:
    """How many layers lie above the parameters of a part, which come in the order in which it makes them."""
    numbers = {name: int(layer[1]) for name in names if (layer := LAYER.search(name))}
    if not numbers:
        raise ValueError(f"layer_lr_decay: {part!r} has no numbered layers; name a part that has, like a tower")
    depth, found, begun = max(numbers.values()) + 1, {}, False
    for name in names:
        begun = begun or name in numbers
        found[name] = depth - numbers[name] if name in numbers else 0 if begun else depth + 1
    return found


def part_of(name: str) -> str:
    """The part that a parameter belongs to: `backbone`, or for the modalities `encoder` and `connector`."""
    path = name.split(".")
    return path[2] if path[0] == "modalities" else path[0]


def fits(name: str, pattern: str) -> bool:
    short = name.split(".", 2)[2] if name.startswith("modalities.") else name
    return pattern == part_of(name) or fnmatchcase(name, pattern) or fnmatchcase(short, pattern)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether parts or globs of names speak of the parameter of that name."""
    return any(fits(name, pattern) for pattern in patterns)
