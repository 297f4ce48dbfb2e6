"""Parts of cards.

A card is a plain mapping: `_target_` names a class, the other keys are its knobs. The builder supplies the positional
parameters of the class from the neighbouring parts; the keyword-only parameters are the knobs.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from inspect import Parameter, isclass, signature
from pkgutil import iter_modules
from typing import Any

from mmrnn.config.coerce import coerce, did_you_mean
from mmrnn.config.tree import is_card, plain

OWN_PACKAGES = frozenset({"mmrnn", "mmrnn_kernels"})
"""Packages whose classes any card may name."""

RESERVED_KEYS = ("_target_", "_partial_")
"""Keys of a card that are no knobs."""


def find_target(card: Mapping[str, Any], trusted: Collection[str] = ()) -> Callable[..., Any]:
    """Return the class that a card names by `_target_`, or a function of ours with `_partial_: true` (a scan).

    Nothing is imported before its package is known to be ours or one of `trusted`, and the target must be defined in
    such a package: names that a module imports for itself (`os.system`) cannot be reached through it. Functions of
    ours are not called by a card, so that a configuration from elsewhere cannot write files.

    Args:
        trusted: further packages whose classes the card may name.

    Raises:
        ValueError: the target is not trusted or does not exist.
    """
    target = str(card["_target_"])
    package, *rest = target.split(".")
    if package not in OWN_PACKAGES.union(trusted):
        raise ValueError(
            f"{target!r} would run code of {package!r}, outside mmrnn; to trust it, set trusted=[{package}]"
        )
    found = _import(package, target)
    path = package
    for name in rest:
        path = f"{path}.{name}"
        found = getattr(found, name) if hasattr(found, name) else _import(path, target, _names(found))
    if not callable(found):
        raise ValueError(f"{target!r} is neither a class nor a function")
    home = str(found.__module__).split(".")[0]
    if home not in OWN_PACKAGES.union(trusted):
        raise ValueError(f"{target!r} is defined in {home!r}, outside mmrnn; to trust it, set trusted=[{home}]")
    if home in OWN_PACKAGES and not isclass(found) and not card.get("_partial_"):
        raise ValueError(f"{target!r} is a function; name a class, or set _partial_: true to get it uncalled")
    return found


def _names(found: Any) -> list[str]:
    """Public names of a package or class, including modules that are not imported yet."""
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
        raise ValueError(f"there is no {name!r} in {parent}{did_you_mean(name, choices)}") from None


def parameters(target: Callable[..., Any]) -> dict[str, Parameter]:
    """Return the parameters of a class or function by name, with annotations resolved where possible."""
    try:
        return dict(signature(target, eval_str=True).parameters)
    except NameError:
        return dict(signature(target).parameters)


def positional_names(target: Callable[..., Any]) -> list[str]:
    """Return the names of the positional parameters, which the builder supplies."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in parameters(target).items() if parameter.kind in kinds]


def instantiate(node: Any, *wired: Any, trusted: Collection[str] = ()) -> Any:
    """Build the part that a card describes, the cards inside it first; anything else is returned unchanged.

    `_partial_: true` gives a function that waits for further arguments.

    Args:
        node: a card, or a mapping or list of cards.
        wired: positional arguments of the class.
        trusted: further packages whose classes the card may name.

    Raises:
        ValueError: the card names a class that is not trusted or does not exist.
    """
    return _instantiate(plain(node), wired, trusted)


def _instantiate(node: Any, wired: tuple[Any, ...], trusted: Collection[str]) -> Any:
    if isinstance(node, list | tuple):
        return [_instantiate(item, (), trusted) for item in node]
    if not isinstance(node, Mapping):
        return node
    knobs = {name: _instantiate(value, (), trusted) for name, value in node.items() if name not in RESERVED_KEYS}
    if not is_card(node):
        return knobs
    target = find_target(node, trusted)
    known = parameters(target)
    knobs = {name: coerce(value, known[name].annotation) if name in known else value for name, value in knobs.items()}
    if not node.get("_partial_"):
        return target(*wired, **knobs)
    later = partial(target, *wired, **knobs)
    if not isclass(target):
        vars(later).update(vars(target))  # the attributes of its contract
    return later
