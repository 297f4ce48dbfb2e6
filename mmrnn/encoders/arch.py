"""Options of models of other libraries that a card may set: sizes and choices, never files or downloads."""

import re
from collections.abc import Collection, Mapping
from typing import Any


def check_arch(library: str, arch: Mapping[str, Any], *, refused: Collection[str]) -> None:
    """Refuse options of a library's model that name files or weights: a configuration may come from anyone.

    Args:
        library: its name.
        arch: option -> value.
        refused: options that are no size or choice of the model itself.

    Raises:
        ValueError: an option is refused, or its value is no number, word, or list or mapping of them.
    """
    for name, value in arch.items():
        if name in refused or name.startswith(("pretrained", "timm_", "hf_")):
            raise ValueError(f"arch.{name}: it is no size of the model; {library} would read files or weights by it")
        if not _is_plain(value):
            raise ValueError(f"arch.{name}: expected a number or a word, got {value!r}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return re.fullmatch(r"[\w.-]*", value) is not None
    return value is None or isinstance(value, bool | int | float)
