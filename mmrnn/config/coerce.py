"""Coercion of YAML values to the type hints of parameters."""

import types
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from inspect import isclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from mmrnn.types import Constraint

CHECKED = (tuple, list, Sequence, Collection, dict, Mapping, float, Path, None, types.NoneType, bool, int, str)
"""Types that YAML can write; a value for a hint of any other type (a part, a function) passes unchecked."""


def coerce(value: Any, hint: Any) -> Any:
    """Convert `value` to the type of `hint`: a list to a tuple, 1 to 1.0, a string to a path.

    Raises:
        TypeError: the value does not fit; the message names the expected type.
    """
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return _coerce_annotated(value, hint)
    if kind in (Union, types.UnionType):
        return _coerce_union(value, hint)
    if kind is Literal:
        if any(value == choice and type(value) is type(choice) for choice in inside):
            return value
        raise TypeError(f"expected one of {', '.join(map(repr, inside))}, got {value!r}{did_you_mean(value, inside)}")
    if kind in (tuple, list, Sequence, Collection) and isinstance(value, list | tuple):
        return _coerce_items(value, kind, inside)
    if kind in (dict, Mapping) and isinstance(value, Mapping):
        return {key: coerce(item, inside[1] if inside else Any) for key, item in value.items()}
    if kind is float and type(value) in (int, float) and value == value:  # NaN differs from itself
        return float(value)
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind in (None, types.NoneType) and value is None:
        return None
    if kind in (bool, int, str) and type(value) is kind:
        return value
    if kind in CHECKED:
        raise TypeError(f"expected {type_name(hint)}, got {value!r}")
    return value


def did_you_mean(word: Any, words: Collection[Any]) -> str:
    """Return `; did you mean 'depth'?` with the closest word, or an empty string."""
    found = get_close_matches(str(word), [str(other) for other in words], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def type_name(hint: Any) -> str:
    """Return the name of a type in the notation of a card: `null`, `int or null`, `int of at least 1`."""
    if get_origin(hint) is Annotated:
        return " ".join([type_name(get_args(hint)[0]), *(one.expected() for one in _constraints(hint))])
    if hint in (None, types.NoneType):
        return "null"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(option) for option in get_args(hint))
    if get_origin(hint) is not None or not isclass(hint):
        return str(hint).replace("typing.", "").replace("collections.abc.", "")
    return hint.__name__


def _coerce_annotated(value: Any, hint: Any) -> Any:
    value = coerce(value, get_args(hint)[0])
    if all(one.holds(value) for one in _constraints(hint)):
        return value
    raise TypeError(f"expected {type_name(hint)}, got {value!r}")


def _constraints(hint: Any) -> "list[Constraint]":
    from mmrnn.types import Constraint

    return [one for one in get_args(hint)[1:] if isinstance(one, Constraint)]


def _coerce_union(value: Any, hint: Any) -> Any:
    options = get_args(hint)
    if type(value) in options:
        return value
    reasons = []
    for option in options:
        try:
            return coerce(value, option)
        except TypeError as error:
            reasons.append(str(error))
    chosen = [option for option in options if option not in (None, types.NoneType)]
    if len(chosen) == 1 and get_origin(chosen[0]) is Literal:
        raise TypeError(reasons[options.index(chosen[0])])
    raise TypeError(f"expected {type_name(hint)}, got {value!r}")


def _coerce_items(value: Sequence[Any], kind: Any, inside: tuple[Any, ...]) -> Sequence[Any]:
    if kind is not tuple:
        return [coerce(item, inside[0] if inside else Any) for item in value]
    if not inside or inside[-1] is Ellipsis:
        return tuple(coerce(item, inside[0] if inside else Any) for item in value)
    if len(inside) != len(value):
        raise TypeError(f"expected {len(inside)} values, got {len(value)}: {list(value)!r}")
    return tuple(coerce(item, hint) for item, hint in zip(value, inside, strict=True))
