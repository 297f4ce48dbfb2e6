"""Settings of a run that differ from those of `mmrnn train` without arguments."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mmrnn.config.compose import compose, compose_with_choices
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import leaves, plain

NOT_SHOWN = ("out", "seed", "choices")
"""Settings that a report shows elsewhere."""

ABSENT = "(none)"

Differences = dict[str, tuple[str, str]]
"""Name of a group, or path of a setting -> its value, and that of the default."""


def differing_choices(choices: Mapping[str, str]) -> Differences:
    """Return the groups of which another option was chosen than by default, the preset first."""
    defaults = _default_choices()
    names = sorted(choices, key=lambda name: name != "model")
    return {
        name: (str(choices[name]), str(defaults.get(name)))
        for name in names
        if str(choices[name]) != str(defaults.get(name))
    }


def differing_settings(cfg: Mapping[str, Any], choices: Mapping[str, str]) -> Differences | None:
    """Return the settings of a run that its chosen cards do not have.

    Args:
        cfg: configuration of the run.
        choices: chosen option of every group.

    Returns:
        None where the cards are not among those of mmrnn, so that nothing is known.
    """
    try:
        defaults = _card_settings(tuple(choices.items()))
    except ConfigError:
        return None
    own = {path: str(value) for path, value in leaves(cfg) if path.partition(".")[0] not in NOT_SHOWN}
    paths = dict.fromkeys([*own, *defaults])
    both = {path: (own.get(path, ABSENT), defaults.get(path, ABSENT)) for path in paths}
    return {path: (value, default) for path, (value, default) in both.items() if value != default}


@lru_cache(maxsize=1)
def _default_choices() -> dict[str, str]:
    return compose_with_choices()[1]


@lru_cache(maxsize=16)
def _card_settings(choices: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Settings of the chosen cards, by path."""
    chosen = {group: option for group, option in choices if option != "None"}
    words = [f"{group}={option}" for group, option in chosen.items() if "@" not in group]
    tree, known = compose_with_choices(*words)
    # A card at a place of its own is a default of another card, or was added.
    placed = {group: option for group, option in chosen.items() if "@" in group and known.get(group) != option}
    if placed:
        tree = compose(*words, *(f"{'' if name in known else '+'}{name}={option}" for name, option in placed.items()))
    return {path: str(value) for path, value in leaves(plain(tree)) if path.partition(".")[0] not in NOT_SHOWN}
