"""Faults of overrides that do not compose, a sentence each."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmrnn.config.coerce import did_you_mean
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import RESERVED_KEYS
from mmrnn.config.overrides import quoting_advice


def explain_overrides(
    compose: Callable[[list[str]], Mapping[str, Any]],
    overrides: Sequence[str],
    groups: Sequence[str],
    error: Exception,
) -> ConfigError:
    """Compose with the overrides one by one, choices before values, and return an error that lists those that fail.

    Args:
        compose: composes a configuration from a list of overrides.
        overrides: all of them.
        groups: names of the groups of cards.
        error: raised when all of them were composed.
    """
    faults, good = [], []
    try:
        cfg = compose(good)
    except Exception:
        return ConfigError(_first_line(error))
    for override in sorted(overrides, key=lambda one: "." in _key(one)):
        try:
            cfg = compose([*good, override])
            good.append(override)
        except Exception as reason:
            faults.append(_sentence(override, reason, cfg, groups))
    return ConfigError(*(faults or [_first_line(error)]))


def _sentence(override: str, error: Exception, cfg: Mapping[str, Any], groups: Sequence[str]) -> str:
    from hydra.errors import OverrideParseException

    key, equals, value = _key(override), "=" in override, override.partition("=")[2]
    text = str(error)
    if card := getattr(error, "missing_cfg_file", None):
        options = getattr(error, "options", None) or []
        wanted = str(card).rpartition("/")[2]
        return f"{override}: there is no card {card}{did_you_mean(wanted, options) or _choices(options)}"
    if not equals and not override.startswith("~"):
        return f"{override}: an override reads key=value"
    if text.startswith("Ambiguous value"):
        return f"{override}: several values in one run; sweep over them with -m, or write a list: {key}=[{value}]"
    if "Could not override" in text or "Could not delete" in text:
        inner = (
            re.search(r"Key '([^']+)' is not in struct", f"{text}\n{error.__cause__}")
            if value.startswith("{")
            else None
        )
        return _missing(f"{key}.{inner[1]}" if inner else key, cfg, groups)
    if isinstance(error, OverrideParseException):
        return f"{override}: the value has characters with a meaning of their own; quote it: {quoting_advice(override)}"
    return f"{override}: {_first_line(error)}"


def _missing(key: str, cfg: Mapping[str, Any], groups: Sequence[str]) -> str:
    """Message for a key that is not in the configuration: the first name that is missing, and the names there are."""
    node: Any = cfg
    path = ""
    for name in key.split("."):
        names = [str(other) for other in node if other not in RESERVED_KEYS] if isinstance(node, Mapping) else []
        if not path and name in groups and name not in names:
            return f"{key}: {name} is a group of cards, which is chosen by {name}=NAME and has no knobs"
        if name not in names:
            names = sorted({*names, *groups}) if not path else names
            what = "no such knob" if path else "no such group or key"
            return f"{path}{name}: {what}{did_you_mean(name, names) or _choices(names)}"
        node, path = node[name], f"{path}{name}."
    return f"{key}: no such value is accepted"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _choices(names: Sequence[str]) -> str:
    return f"; there are: {', '.join(names)}" if names else "; there are none"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
