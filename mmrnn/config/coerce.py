"""Values as a YAML file gives them, in the form that a type hint asks for."""

import types
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from inspect import isclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin


def fit(value: Any, hint: Any) -> Any:
    """`value` in the form of `hint`: a list becomes the tuple, 1 the 1.0.

    Types that YAML cannot write (a part, a function) take any value.

    Raises:
        TypeError: it does not fit; the message says what was expected.
    """
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return _fit_any(value, hint)
    if kind is Literal:
        if any(value == choice and type(value) is type(choice) for choice in inside):
            return value
        raise TypeError(f"expected one of {', '.join(map(repr, inside))}, got {value!r}{near(value, inside)}")
    if kind in (tuple, list, Sequence, Collection) and isinstance(value, list | tuple):
        return _fit_items(value, kind, inside)
    if kind in (dict, Mapping) and isinstance(value, Mapping):
        return {key: fit(item, inside[1] if inside else Any) for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind in (None, types.NoneType) and value is None:
        return None
    if kind in (bool, int, str) and type(value) is kind:
        return value
    if kind in (
        tuple,
        list,
        Sequence,
        Collection,
        dict,
        Mapping,
        float,
        Path,
        None,
        types.NoneType,
        bool,
        int,
        str,
    ):
        raise TypeError(f"expected {name(hint)}, got {value!r}")
    return value


def near(word: Any, words: Collection[Any]) -> str:
    """`; did you mean 'depth'?`, or nothing when no word is near."""
    found = get_close_matches(str(word), [str(other) for other in words], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def name(hint: Any) -> str:
    """A type as a reader of a card would write it."""
    if hint in (None, types.NoneType):
        return "null"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(name(option) for option in get_args(hint))
    if get_origin(hint) is not None or not isclass(hint):
        return str(hint).replace("typing.", "").replace("collections.abc.", "")
    return hint.__name__


def _fit_any(value: Any, hint: Any) -> Any:
    options = get_args(hint)
    if type(value) in options:
        return value
    reasons = []
    for option in options:
        try:
            return fit(value, option)
        except TypeError as error:
            reasons.append(str(error))
    chosen = [option for option in options if option not in (None, types.NoneType)]
    if len(chosen) == 1 and get_origin(chosen[0]) is Literal:
        raise TypeError(reasons[options.index(chosen[0])])
    raise TypeError(f"expected {name(hint)}, got {value!r}")


def _fit_items(value: Sequence[Any], kind: Any, inside: tuple[Any, ...]) -> Sequence[Any]:
    if kind is not tuple:
        return [fit(item, inside[0] if inside else Any) for item in value]
    if not inside or inside[-1] is Ellipsis:
        return tuple(fit(item, inside[0] if inside else Any) for item in value)
    if len(inside) != len(value):
        raise TypeError(f"expected {len(inside)} values, got {len(value)}: {list(value)!r}")
    return tuple(fit(item, hint) for item, hint in zip(value, inside, strict=True))
