"""What a name map is: one project's names for the tensors of one kind of part, as data."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

Adapt = Callable[[dict[str, Tensor], nn.Module, list[str]], dict[str, Tensor]]


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
            loaded there by whichever format it has.
        adapt: changes tensors that already carry our names (`adapt(tensors, module, notes)`), adding a sentence to
            `notes` for every change that a user has to know of. It is linear, so that gradients pass through it too.
    """

    name: str
    part: str
    marks: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    adapt: Adapt | None = None

    def fits(self, module: nn.Module, keys: Iterable[str]) -> bool:
        classes = {kind.__name__ for kind in type(module).__mro__}
        return self.part in classes and set(self.marks) <= set(keys)

    def rename(self, key: str) -> str | None:
        """Our name for `key`, or None where the map does not know it."""
        return _first(self.names, key)

    def reason(self, key: str) -> str | None:
        """Why `key` is left out, or None where it is needed."""
        return _first(self.ignored, key)


def _first(patterns: Mapping[str, str], key: str) -> str | None:
    for pattern, answer in patterns.items():
        if match := _regex(pattern).fullmatch(key):
            return _fill(answer, match.groups())
    return None


def _fill(answer: str, parts: tuple[str, ...]) -> str:
    rest = iter(parts)
    return re.sub(r"\{\}|\*$", lambda _: next(rest), answer)


_cache: dict[str, re.Pattern[str]] = {}


def _regex(pattern: str) -> re.Pattern[str]:
    if pattern not in _cache:
        _cache[pattern] = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)").replace(r"\*", "(.+)"))
    return _cache[pattern]
