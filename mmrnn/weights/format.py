"""What a name map is: one project's names for the tensors of one kind of part, as data."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Size, Tensor, nn

Adapt = Callable[[dict[str, Tensor], nn.Module, list[str]], dict[str, Tensor]]
Back = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Route = str | tuple[str, str]


@dataclass(frozen=True)
class Sizes:
    """What a source says of the part that it fills: the arguments that a neighbour gives, and the knobs of a card."""

    knobs: dict[str, Any]
    wired: tuple[int, ...] = ()


Infer = Callable[[Mapping[str, Size], Mapping[str, Any]], Sizes]
"""`infer(shapes, facts)`: the sizes, given the shape of every tensor and what stands beside the tensors."""


@dataclass(frozen=True)
class Format:
    """How one project names the tensors of one kind of part.

    In `names` and `ignored`, `{}` stands for a number and a `*` at the end for the rest of a name; the first
    pattern that fits decides.

    Attributes:
        part: name of the class it fills.
        marks: names that a source of this format has, and none of another format for the same part has all of.
        names: their name -> ours.
        ignored: their name -> why it is not needed.
        routes: for a source that holds several parts: prefix -> path of the submodule; what follows the prefix is
            loaded there by whichever format it has. With a second text, that is put where the prefix was. Numbers
            are `{}` in both.
        adapt: changes tensors that already carry our names (`adapt(tensors, module, notes)`), adding a sentence to
            `notes` for every change that a user has to know of. It is linear, so that gradients pass through it too.
        back: undoes `adapt` for writing; None: this format is only read (where there is an `adapt` or are `routes`).
        infer: tells sizes from a source; None: they cannot be told.
        preset: for a source of a whole model: the choices that say what the tensors do not.
    """

    name: str
    part: str
    signature: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    adapt: Adapt | None = None
    inverse: Back | None = None
    infer: Infer | None = None
    preset: tuple[str, ...] = ()

    def fits(self, module: nn.Module, keys: Iterable[str]) -> bool:
        return self.part in classes(module) and set(self.signature) <= set(keys)

    def rename(self, key: str) -> str | None:
        """Our name for `key`, or None where the map does not know it."""
        return next(_all(self.names, key), None)

    def reason(self, key: str) -> str | None:
        """Why `key` is left out, or None where it is needed."""
        return next(_all(self.ignored, key), None)

    def route(self, key: str) -> tuple[str, str] | None:
        """Path of the submodule, and the name that the tensor has there."""
        for prefix, route in self.routes.items():
            if match := _regex(prefix).match(key):
                path, put = (route, "") if isinstance(route, str) else route
                return path, _fill(put, match.groups()) + key[match.end() :]
        return None

    @property
    def writable(self) -> bool:
        """Whether it can be written as well as read."""
        dropped = self.adapt is not None and self.inverse is None
        known_by_what_is_left_out = any(self.reason(mark) is not None for mark in self.signature)
        return bool(self.names) and not (self.routes or dropped or known_by_what_is_left_out)

    def their_names(self, name: str) -> list[str]:
        """Every name that the format has for our `name`."""
        found = (one for theirs, ours in self.names.items() for one in _all({ours: theirs}, name))
        return list(dict.fromkeys(found))


def classes(module: nn.Module) -> list[str]:
    """Names of the class of a module and of those that it extends, the nearest first."""
    return [kind.__name__ for kind in type(module).__mro__]


def most_specific(fitting: Sequence[Format]) -> list[Format]:
    """Without those that are known by a part of what another one is known by."""
    return [one for one in fitting if not any(set(one.signature) < set(other.signature) for other in fitting)]


def unchanged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The way back of an `adapt` that only leaves out what our part does not have."""
    return tensors


def _all(patterns: Mapping[str, str], key: str) -> Iterator[str]:
    for pattern, answer in patterns.items():
        if match := _regex(pattern).fullmatch(key):
            yield _fill(answer, match.groups())


def _fill(answer: str, parts: tuple[str, ...]) -> str:
    rest = iter(parts)
    return re.sub(r"\{\}|\*$", lambda _: next(rest), answer)


_cache: dict[str, re.Pattern[str]] = {}


def _regex(pattern: str) -> re.Pattern[str]:
    if pattern not in _cache:
        _cache[pattern] = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)").replace(r"\*", "(.+)"))
    return _cache[pattern]
