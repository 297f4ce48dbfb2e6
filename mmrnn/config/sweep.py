"""Sweeps as files (`conf/sweep/NAME.yaml`): their description, and its check.

overrides: {recipe: study}                                 of every job
grid: {prompt: [first, last], connector: [linear, mlp]}    what is crossed
seeds: [0, 1]                                              a job of each combination for each seed
more_seeds: [2, 3]                                         further ones, where these do not decide
vary: {connector: {mlp: {stage.instruct.lr: 0.003}}}       overrides that go with an option
contrasts:                                                 differences that are asked for
- {group: prompt, option: last, against: first, by: connector}
- {group: connector.parts.0.grid, slope: log2}
note: why
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from mmrnn.config.coerce import coerce, did_you_mean
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import parameters
from mmrnn.config.overrides import override_text
from mmrnn.types import Seed

SEED = "seed"

Option = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Difference that a sweep asks for, written down before the first run: of two options, or over all of them.

    Attributes:
        group: key of the grid.
        option: of the group; None: there is a slope.
        against: option that it is compared with; None: there is a slope.
        slope: the change each time that the options of the group, positive numbers, double (least squares).
        by: key of the grid whose options may change the difference (an interaction); None: it is averaged over them.
    """

    group: str
    option: Option | None = None
    against: Option | None = None
    slope: Literal["log2"] | None = None
    by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Description of a sweep.

    Attributes:
        grid: group or knob -> its options, all of which are crossed.
        overrides: of every job, by key; the command line may give others in their place.
        seeds: a job of each combination for each of them; empty: that of the configuration.
        more_seeds: added once, where the interval of a contrast holds both no difference and one that matters
            (`mmrnn.evaluation.sweeps.more_seeds`).
        vary: key of the grid -> option -> overrides that go with it, by key.
        contrasts: differences that are asked for.
        note: why.
    """

    grid: Mapping[str, tuple[Any, ...]]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[Seed, ...] = ()
    more_seeds: tuple[Seed, ...] = ()
    vary: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict)
    contrasts: tuple[Contrast, ...] = ()
    note: str = ""

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """All that is crossed, seeds included."""
        return {**self.grid, **({SEED: self.seeds} if self.seeds else {})}


def read_sweep(tree: Any, card_grid: Mapping[str, Sequence[Any]] | None = None) -> Sweep:
    """Return the sweep that a card describes.

    Args:
        tree: of the card, with what the command line changes.
        card_grid: grid of the card itself, which the command line may narrow: `vary` may name all of its options.

    Raises:
        ConfigError: all faults at once.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"sweep: expected a mapping, got {tree!r}; set sweep=NAME (`mmrnn list sweep` shows them)")
    if found := [*_field_faults(tree, Sweep, "sweep"), *_contrast_form_faults(tree)]:
        raise ConfigError(*found)
    rows = [Contrast(**row) for row in tree.get("contrasts") or ()]
    known = {name: one.annotation for name, one in parameters(Sweep).items() if name in tree and name != "contrasts"}
    sweep = Sweep(**{name: coerce(tree[name], hint) for name, hint in known.items()}, contrasts=tuple(rows))
    if found := [*_value_faults(sweep), *_contrast_faults(sweep), *_vary_faults(sweep, card_grid or {})]:
        raise ConfigError(*found)
    return sweep


def contrast_fault(one: Contrast, options: Sequence[Any]) -> str | None:
    """Return a sentence on what is wrong with a contrast by itself, or with a slope over the options of its group."""
    if not one.slope:
        missing = one.option is None or one.against is None
        return "name an option and what it is compared with (against), or a slope" if missing else None
    if one.option is not None or one.against is not None:
        return "a slope is over all options; remove option and against"
    if wrong := [option for option in options if not _is_positive(option)]:
        return f"a slope needs options that are positive numbers, {one.group} has {wrong[0]!r}"
    return f"a slope needs two options, {one.group} has {options[0]!r} alone" if len(options) == 1 else None


def _is_positive(option: Any) -> bool:
    try:
        return 0 < float(str(option)) < inf
    except ValueError:
        return False


def _field_faults(tree: Mapping[str, Any], kind: type, path: str) -> Iterator[str]:
    known = parameters(kind)
    for name in tree:
        if name not in known:
            near = did_you_mean(name, known) or f"; it has {', '.join(known)}"
            yield f"{path}.{name}: no such field{near}"
    for name, one in known.items():
        if name not in tree:
            if one.default is one.empty:
                yield f"{path}.{name}: a value is required"
        elif name != "contrasts":
            try:
                coerce(tree[name], one.annotation)
            except TypeError as error:
                yield f"{path}.{name}: {error}"


def _contrast_form_faults(tree: Mapping[str, Any]) -> Iterator[str]:
    rows = tree.get("contrasts") or ()
    if not isinstance(rows, list | tuple):
        yield f"sweep.contrasts: expected a list, got {rows!r}"
        return
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            yield f"sweep.contrasts.{number}: expected a mapping like {{group: prompt, option: last, against: first}}"
        else:
            yield from _field_faults(row, Contrast, f"sweep.contrasts.{number}")


def _value_faults(sweep: Sweep) -> Iterator[str]:
    if not sweep.axes:
        yield "sweep.grid: there is nothing to cross; name a group or a knob with its options, or give seeds"
    for key, values in sweep.grid.items():
        if key == SEED and sweep.seeds:
            yield "sweep.grid.seed: seeds are given by sweep.seeds, too; remove one of them"
        if not values:
            yield f"sweep.grid.{key}: it has no options; name at least one"
    if sweep.more_seeds and not sweep.seeds:
        yield "sweep.more_seeds: there are no seeds to add them to; name some in sweep.seeds"
    for name, keys in (("grid", sweep.grid), ("overrides", sweep.overrides)):
        for key in keys:
            if key in ("out", "sweep") or key.startswith(("hydra", "sweep.")):
                yield f"sweep.{name}.{key}: it is no part of a run; remove it"
    for key in sweep.axes.keys() & sweep.overrides.keys():
        yield f"sweep.overrides.{key}: the grid crosses {key}; remove it from one of them"
    lists = {f"sweep.grid.{key}": values for key, values in sweep.grid.items()}
    for place, values in {**lists, "sweep.seeds": sweep.seeds, "sweep.more_seeds": sweep.more_seeds}.items():
        if len({override_text(value) for value in values}) < len(values):
            yield f"{place}: {', '.join(map(str, values))} has a value twice; remove one"


def _contrast_faults(sweep: Sweep) -> Iterator[str]:
    for number, one in enumerate(sweep.contrasts):
        path = f"sweep.contrasts.{number}"
        for name in filter(None, (one.group, one.by)):
            if name not in sweep.grid:
                near = did_you_mean(name, sweep.grid) or f"; it has {', '.join(sweep.grid) or 'none'}"
                yield f"{path}: {name!r} is no key of the grid{near}"
        known = sweep.grid.get(one.group)
        if fault := contrast_fault(one, known or ()):
            yield f"{path}: {fault}"
            continue
        for option in (one.option, one.against) if known is not None and not one.slope else ():
            if option not in known:
                near = did_you_mean(option, known) or f"; there are {', '.join(map(str, known))}"
                yield f"{path}: {one.group} has no option {option!r} in the grid{near}"
        if one.option == one.against and not one.slope:
            yield f"{path}: {one.option!r} is compared with itself; name another option"
        if one.by == one.group:
            yield f"{path}: by {one.by!r} is the group itself; name another key of the grid, or leave it out"


def _vary_faults(sweep: Sweep, card_grid: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    for key, options in sweep.vary.items():
        if key not in sweep.grid:
            near = did_you_mean(key, sweep.grid) or f"; it has {', '.join(sweep.grid) or 'none'}"
            yield f"sweep.vary.{key}: no key of the grid{near}"
            continue
        known = [*dict.fromkeys([*sweep.grid[key], *card_grid.get(key, ())])]
        for option, knobs in options.items():
            if option not in known:
                near = did_you_mean(option, known) or f"; there are {', '.join(map(str, known))}"
                yield f"sweep.vary.{key}.{option}: no such option in the grid{near}"
            for knob in sweep.axes.keys() & knobs.keys():
                yield f"sweep.vary.{key}.{option}.{knob}: the grid crosses {knob}; remove it from one of them"
