"""Selection of parameters by part, by glob and by layer."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

LAYER = re.compile(r"\.(?:blocks|layers|resblocks)\.(\d+)\.")
"""Layer number in the name of a parameter."""


def layer_distance(names: Sequence[str], part: str) -> dict[str, int]:
    """Return, for each parameter of a part, the number of layers above it (1 for the last layer, 0 after it).

    Args:
        names: of the parameters, in the order of the part's modules.
        part: named in the error.

    Raises:
        ValueError: no name has a layer number.
    """
    numbers = {name: int(layer[1]) for name in names if (layer := LAYER.search(name))}
    if not numbers:
        raise ValueError(f"layer_lr_decay: {part!r} has no numbered layers; name a part that has, such as an encoder")
    depth, found, in_layers = max(numbers.values()) + 1, {}, False
    for name in names:
        in_layers = in_layers or name in numbers
        found[name] = depth - numbers[name] if name in numbers else 0 if in_layers else depth + 1
    return found


def part_of(name: str) -> str:
    """Return the part that a parameter belongs to: `backbone`, `hook`, or of a modality `encoder` or `connector`."""
    path = name.split(".")
    return path[2] if path[0] == "modalities" else path[0]


def fits(name: str, pattern: str) -> bool:
    """Return True where a pattern is the part of a parameter or a glob of its name (`modalities.NAME.` is optional)."""
    short = name.split(".", 2)[2] if name.startswith("modalities.") else name
    return pattern == part_of(name) or fnmatchcase(name, pattern) or fnmatchcase(short, pattern)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return True where one of several patterns fits the name of a parameter."""
    return any(fits(name, pattern) for pattern in patterns)
