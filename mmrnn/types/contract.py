"""Declaring, and checking, that a class or a function fulfils a contract of `mmrnn.types.parts`."""

from collections.abc import Callable
from inspect import get_annotations, isclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def implements(contract: type, **attributes: Any) -> Callable[[F], F]:
    """Declare that a function fulfils a contract: `@implements(Position, axes=2)`.

    A function cannot inherit; it gets the attributes of the contract instead, those left out with their defaults.

    Raises:
        TypeError: the contract has no such attribute.
    """
    defaults = {name: vars(contract)[name] for name in get_annotations(contract)}
    if unknown := attributes.keys() - defaults.keys():
        raise TypeError(
            f"{contract.__name__} has no attribute {', '.join(sorted(unknown))}; it has {', '.join(defaults)}"
        )

    def attach(function: F) -> F:
        vars(function).update({"contract": contract, **defaults, **attributes})
        return function

    return attach


def fulfils(target: Any, contract: type) -> bool:
    """Return True for a class that inherits the contract and for a function that `implements` it."""
    if isclass(target):
        return contract in target.__mro__
    return hasattr(target, "contract") and target.contract is contract
