"""Weight format: the names that one project gives to the tensors of one kind of part, as data."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Size, Tensor, nn

from mmrnn.types import Composite

Tensors = dict[str, Tensor]
Shapes = Mapping[str, Size]

Adapt = Callable[[Tensors, nn.Module, list[str]], Tensors]
"""`adapt(tensors, module, notes)`: change tensors that already have our names to what `module` needs."""

Inverse = Callable[[Tensors], Tensors]
"""Undo an `Adapt`, for export."""

SubmodulePath = str | tuple[str, str]
"""Path of a submodule, and the prefix that its tensors get there (a path alone: none)."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a part, inferred from the tensors of a checkpoint.

    Attributes:
        knobs: keyword arguments of its class, as a card has them.
        wired: positional arguments, which inside a model come from the neighbouring parts.
    """

    knobs: dict[str, Any]
    wired: tuple[int, ...] = ()


Infer = Callable[[Shapes, Mapping[str, Any]], Sizes]
"""`infer(shapes, metadata)`: sizes, given the shape of every tensor and the `config.json` or GGUF metadata."""


@dataclass(frozen=True)
class Format:
    """Names that one project gives to the tensors of one kind of part.

    In `names`, `ignored`, `fresh` and `submodules`, `{}` stands for a number; in the first three a `*` at the end
    stands for the rest of a name. The first pattern that matches decides.

    Attributes:
        part: class that it fills, or a contract that the class inherits; None: any module that has the parts which
            `submodules` names (a whole model, a modality).
        signature: names by which a source is recognised: it has all of them, and no other format for the same part has
            a superset.
        names: their name -> ours.
        ignored: their name -> reason why it is not loaded.
        submodules: for a source that holds several parts: prefix -> path of the submodule. The rest of the name is
            loaded there in whatever format it has.
        adapt: change of tensors after renaming; it appends a sentence to `notes` for each change that a user has to
            know of. It is linear, so that it applies to gradients as well.
        inverse: undoes `adapt`; None: a format with `adapt` or `submodules` is read-only.
        fresh: our names of what the source never has, and what therefore stays as initialised.
        infer: sizes of the part from a source; None: they cannot be inferred.
        preset: for a source of a whole model: overrides that choose the parts which its tensors do not determine.
    """

    name: str
    part: type | None
    signature: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    submodules: Mapping[str, SubmodulePath] = field(default_factory=dict)
    adapt: Adapt | None = None
    inverse: Inverse | None = None
    fresh: tuple[str, ...] = ()
    infer: Infer | None = None
    preset: tuple[str, ...] = ()

    @property
    def part_name(self) -> str:
        """Name of what it fills, for messages and tables."""
        return "model" if self.part is None else self.part.__name__

    @property
    def writable(self) -> bool:
        """True if it can be written as well as read."""
        lossy = self.adapt is not None and self.inverse is None
        ignores_signature = any(self.reason(key) is not None for key in self.signature)
        return bool(self.names) and not (self.submodules or lossy or ignores_signature)

    def fills(self, module: nn.Module) -> bool:
        """True for a module of the class, or one that has the parts, that this format is for."""
        if self.part is not None:
            return self.part in type(module).__mro__
        paths = {path if isinstance(path, str) else path[0] for path in self.submodules.values()}
        return not paths.isdisjoint(inner_parts(module))

    def fits(self, module: nn.Module, keys: Iterable[str]) -> bool:
        """True if it fills `module` and its whole signature is among `keys`."""
        return set(self.signature) <= set(keys) and self.fills(module)

    def rename(self, key: str) -> str | None:
        """Our name for `key`; None: it is unknown."""
        return next(_substitutions(self.names, key), None)

    def is_fresh(self, name: str) -> bool:
        """True for our name of a tensor that the source never has."""
        return any(_regex(pattern).fullmatch(name) for pattern in self.fresh)

    def reason(self, key: str) -> str | None:
        """Reason why `key` is ignored; None: it is not."""
        return next(_substitutions(self.ignored, key), None)

    def submodule(self, key: str) -> tuple[str, str] | None:
        """Path of the submodule that `key` belongs to, and its name there; None: to none."""
        for prefix, target in self.submodules.items():
            if match := _regex(prefix).match(key):
                path, new_prefix = (target, "") if isinstance(target, str) else target
                return path, _fill(new_prefix, match.groups()) + key[match.end() :]
        return None

    def their_names(self, name: str) -> list[str]:
        """Every name that the format has for our `name`."""
        matches = (key for theirs, ours in self.names.items() for key in _substitutions({ours: theirs}, name))
        return list(dict.fromkeys(matches))


def inner_parts(module: nn.Module) -> Mapping[str, nn.Module]:
    """Inner modules that have weight formats of their own, by path."""
    return module.weight_parts() if isinstance(module, Composite) else {}


def most_specific(formats: Sequence[Format]) -> list[Format]:
    """Drop the formats whose signature is a proper subset of another one's."""
    return [one for one in formats if not any(set(one.signature) < set(other.signature) for other in formats)]


def unchanged(tensors: Tensors) -> Tensors:
    """Inverse of an `adapt` that only drops tensors which our part does not have."""
    return tensors


def _substitutions(patterns: Mapping[str, str], key: str) -> Iterator[str]:
    for pattern, template in patterns.items():
        if match := _regex(pattern).fullmatch(key):
            yield _fill(template, match.groups())


def _fill(template: str, values: tuple[str, ...]) -> str:
    rest = iter(values)
    return re.sub(r"\{\}|\*$", lambda _: next(rest), template)


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)").replace(r"\*", "(.+)"))
