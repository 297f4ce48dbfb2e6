"""Parts of cards.

A card is plain data here (dict, list, number, text): `_target_` names a class, the other keys are its knobs. The
builder supplies the positional parameters of the class from the neighbouring parts; the keyword-only ones are knobs.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from inspect import Parameter, isclass, signature
from pkgutil import iter_modules
from typing import Any

from mmrnn.config.coerce import fit, near
from mmrnn.config.tree import is_card, plain

OWN = frozenset({"mmrnn", "mmrnn_kernels"})
"""The packages whose classes any card may name."""

RESERVED = ("_target_", "_partial_")


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


def make(node: Any, *wired: Any, trusted: Collection[str] = ()) -> Any:
    """Make the part that a card describes, the cards inside it first; what is no card is returned as it is.

    `_partial_: true` returns a function that waits for further arguments.

    Args:
        wired: positional arguments.
        trusted: packages beside mmrnn whose classes the card may name.

    Raises:
        ValueError: the card names a class outside mmrnn that is not trusted, or one that is not there.
    """
    return _make(plain(node), wired, trusted)


def _make(node: Any, wired: tuple[Any, ...], trusted: Collection[str]) -> Any:
    if isinstance(node, list | tuple):
        return [_make(item, (), trusted) for item in node]
    if not isinstance(node, Mapping):
        return node
    knobs = {name: _make(value, (), trusted) for name, value in node.items() if name not in RESERVED}
    if not is_card(node):
        return knobs
    target = find(node, trusted)
    known = parameters(target)
    knobs = {name: fit(value, known[name].annotation) if name in known else value for name, value in knobs.items()}
    return partial(target, *wired, **knobs) if node.get("_partial_") else target(*wired, **knobs)
