"""What is wrong with overrides that do not compose, said in one sentence each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmrnn.config.coerce import near
from mmrnn.config.error import ConfigError


def explain(
    read: Callable[[list[str]], Mapping[str, Any]],
    overrides: Sequence[str],
    groups: Sequence[str],
    error: Exception,
) -> ConfigError:
    """Try the overrides one by one, choices before values, and say what is wrong with each that fails.

    Args:
        read: composes a configuration from some overrides.
        groups: the names of the groups of cards.
        error: what composing all of them said.
    """
    faults, good = [], []
    try:
        cfg = read(good)
    except Exception:
        return ConfigError(_first_line(error))
    for override in sorted(overrides, key=lambda one: "." in _key(one)):
        try:
            cfg = read([*good, override])
            good.append(override)
        except Exception as reason:
            faults.append(_sentence(override, reason, cfg, groups))
    return ConfigError(*(faults or [_first_line(error)]))


def _sentence(override: str, error: Exception, cfg: Mapping[str, Any], groups: Sequence[str]) -> str:
    key, equals, value = _key(override), "=" in override, override.partition("=")[2]
    text = str(error)
    if card := getattr(error, "missing_cfg_file", None):
        options = getattr(error, "options", None) or []
        wanted = str(card).rpartition("/")[2]
        return f"{override}: there is no card {card}{near(wanted, options) or _choices(options)}"
    if not equals and not override.startswith("~"):
        return f"{override}: an override reads key=value"
    if text.startswith("Ambiguous value"):
        return f"{override}: several values at once; sweep over them with -m, or write a list: {key}=[{value}]"
    if "Could not override" in text or "Could not delete" in text:
        return _missing(key, cfg, groups)
    return f"{override}: {_first_line(error)}"


def _missing(key: str, cfg: Mapping[str, Any], groups: Sequence[str]) -> str:
    """Where a key leaves the configuration, and which names are there instead."""
    node: Any = cfg
    path = ""
    for name in key.split("."):
        names = [str(other) for other in node] if isinstance(node, Mapping) else []
        if name not in names:
            names = sorted({*names, *groups}) if not path else names
            what = "no such knob" if path else "no such group or key"
            return f"{path}{name}: {what}{near(name, names) or _choices(names)}"
        node, path = node[name], f"{path}{name}."
    return f"{key}: it takes no such value"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _choices(names: Sequence[str]) -> str:
    return f"; there are: {', '.join(names)}" if names else ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
