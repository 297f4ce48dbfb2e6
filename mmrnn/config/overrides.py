"""Overrides as people paste them, in the grammar of Hydra."""

from collections.abc import Mapping, Sequence
from os.path import expanduser
from shlex import quote
from typing import Any

SPECIAL = frozenset(",[]{}")
"""Characters by which Hydra reads lists, mappings and sweeps; a value with them is left as written."""


def readable(overrides: Sequence[str]) -> list[str]:
    """Return overrides that Hydra can read, with the same meaning.

    A value that its grammar refuses as it stands (a path with `=`, brackets or letters beyond ASCII) is quoted, a `~`
    in front is the home folder, and a mapping for a knob may have new keys (`stage.instruct.lr_mult={encoder: 0.1}`).
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, found = OverridesParser.create(), []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or key.startswith("~"):
            found.append(override)
        elif value.startswith("~") and not SPECIAL.intersection(value):
            found.append(f"{key}={quoted(expanduser(value))}")
        elif value.startswith("{") and "." in key and not key.startswith("+"):
            found.append(f"++{override}")
        else:
            try:
                parser.parse_override(override)
            except HydraException:
                if not SPECIAL.intersection(value) and value[0] not in "\"'":
                    override = f"{key}={quoted(value)}"
            found.append(override)
    return found


def quoting_advice(override: str) -> str:
    """Return the override as a word that Hydra and a shell read."""
    key, _, value = override.partition("=")
    return quote(f"{key}={quoted(value)}")


def quoted(value: str) -> str:
    """Return a quoted word of Hydra; a backslash in front of a quote escapes it."""
    return '"' + value.replace('"', '\\"') + '"'


def override_key(override: str) -> str:
    """Return the key of an override: `stage.align.steps` of `++stage.align.steps=3`."""
    return override.partition("=")[0].lstrip("+~")


def override_text(value: Any) -> str:
    """Return a value as Hydra reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{override_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(override_text, value)) + "]"
    return quoted(value) if isinstance(value, str) and SPECIAL.intersection(value) else str(value)
