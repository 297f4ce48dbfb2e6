"""What a card says: a class by `_target_`, and its knobs. Comparing it with the signature; making the part.

A card is plain data here (dict, list, number, text). The positional parameters of a class are wired by the
builder from the neighbouring parts; the keyword-only ones are its knobs.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from importlib import import_module
from inspect import Parameter, isclass, signature
from pkgutil import iter_modules
from typing import Any

from mmrnn.fit import fit, near


class ConfigError(ValueError):
    """A configuration that does not fit; `faults` lists every reason as `path: what, and the way out`."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(faults[0] if len(faults) == 1 else f"the configuration does not fit:\n{lines}")


OWN = frozenset({"mmrnn", "mmrnn_kernels"})
"""The packages whose classes any card may name."""

RESERVED = ("_target_", "_partial_")


def is_card(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def find(card: Mapping[str, Any], trusted: Collection[str] = ()) -> Callable[..., Any]:
    """The class that a card names by `_target_`; of our functions only one that the card leaves uncalled (a scan).

    Nothing is imported before its package is known to be ours or one of `trusted`, and what is found must be
    defined in such a package: what a module imports for itself (`os.system`) cannot be reached through it. A
    function of ours that writes a file is not called just because a configuration from elsewhere names it.

    Raises:
        ValueError: not trusted, or not there.
    """
    target = str(card["_target_"])
    package, *rest = target.split(".")
    if package not in OWN.union(trusted):
        raise ValueError(
            f"{target!r} would run code of {package!r}, outside mmrnn; to trust it, say trusted=[{package}]"
        )
    found = _import(package, target)
    path = package
    for name in rest:
        path = f"{path}.{name}"
        found = getattr(found, name) if hasattr(found, name) else _import(path, target, _names(found))
    if not callable(found):
        raise ValueError(f"{target!r} is neither a class nor a function")
    home = str(found.__module__).split(".")[0]
    if home not in OWN.union(trusted):
        raise ValueError(f"{target!r} is defined in {home!r}, outside mmrnn; to trust it, say trusted=[{home}]")
    if home in OWN and not isclass(found) and not card.get("_partial_"):
        raise ValueError(f"{target!r} is a function; name a class, or say _partial_: true if it is to be called later")
    return found


def _names(found: Any) -> list[str]:
    """What a package or class offers, modules that are not imported yet included."""
    modules = [module.name for module in iter_modules(getattr(found, "__path__", []))]
    return [name for name in {*dir(found), *modules} if not name.startswith("_")]


def _import(path: str, target: str, choices: Collection[str] = ()) -> Any:
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        parent, _, name = path.rpartition(".")
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise ValueError(f"{target!r} needs {error.name!r}, which is not installed") from error
        if not parent:
            raise ValueError(f"no package {name!r} is installed; install it or put its folder on PYTHONPATH") from None
        raise ValueError(f"there is no {name!r} in {parent}{near(name, choices)}") from None


def parameters(target: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a class or function by name, their types resolved where that is possible."""
    try:
        return dict(signature(target, eval_str=True).parameters)
    except NameError:
        return dict(signature(target).parameters)


def positional(target: Callable[..., Any]) -> list[str]:
    """The names of the parameters that the builder may wire."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in parameters(target).items() if parameter.kind in kinds]


def faults(card: Mapping[str, Any], path: str, wired: int | None = 0, trusted: Collection[str] = ()) -> Iterator[str]:
    """All that is wrong with a card and the cards inside it, each with its path.

    Args:
        wired: how many positional parameters the builder supplies; None: all of them.
    """
    try:
        target = find(card, trusted)
    except ValueError as error:
        yield f"{path}._target_: {error}"
        return
    supplied = positional(target)[:wired]
    known = {name: one for name, one in parameters(target).items() if name not in supplied}
    named = {name: one for name, one in known.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    for name, value in card.items():
        place = f"{path}.{name}"
        if name in RESERVED:
            continue
        if name in supplied:
            yield f"{place}: the builder sets it from the neighbouring part; leave it out"
        elif name not in named and len(named) == len(known):
            yield f"{place}: {target.__name__} has no such knob{near(name, named) or _list(named)}"
        elif isinstance(value, str) and value == "???":
            yield f"{place}: needs a value"
        elif name in named:
            yield from _misfit(value, named[name].annotation, place)
        yield from inner_faults(value, place, trusted)
    for name in () if card.get("_partial_") else named:
        if name not in card and named[name].default is Parameter.empty:
            yield f"{path}.{name}: {target.__name__} needs it; add it to the card"


def _misfit(value: Any, hint: Any, place: str) -> Iterator[str]:
    try:
        fit(value, hint)
    except TypeError as error:
        yield f"{place}: {error}"


def _list(knobs: Collection[str]) -> str:
    return f"; it has {', '.join(knobs)}" if knobs else "; it has none"


def inner_faults(value: Any, path: str, trusted: Collection[str] = ()) -> Iterator[str]:
    """The faults of the cards that lie somewhere inside a value."""
    if is_card(value):
        yield from faults(value, path, 0, trusted)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from inner_faults(item, f"{path}.{name}", trusted)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from inner_faults(item, f"{path}.{index}", trusted)


def make(card: Any, *wired: Any, trusted: Collection[str] = ()) -> Any:
    """The part that a card describes, the cards inside it made first; what is no card is answered as it is.

    `_partial_: true` answers a function that waits for further arguments.
    """
    if isinstance(card, list | tuple):
        return [make(item, trusted=trusted) for item in card]
    if not isinstance(card, Mapping):
        return card
    knobs = {name: make(value, trusted=trusted) for name, value in card.items() if name not in RESERVED}
    if not is_card(card):
        return knobs
    target = find(card, trusted)
    known = parameters(target)
    knobs = {name: fit(value, known[name].annotation) if name in known else value for name, value in knobs.items()}
    return partial(target, *wired, **knobs) if card.get("_partial_") else target(*wired, **knobs)
