"""Recipes of several stages: each stage is a run of its own, which starts from the model of the one before.

A recipe such as `conf/recipe/visualrwkv6.yaml` names in `stages` the recipe of each stage, with whatever else differs:

    stages:
      align: {recipe: visualrwkv6_align}
      instruct: {recipe: visualrwkv6_instruct}

On the command line `stages.align.KEY=VALUE` holds for that stage alone (a group, a knob, a setting), `stage.align.KEY`
is short for the knobs of the stage itself, `stages.align.skip=true` leaves it out, and all else holds for every stage.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_text
from mmrnn.config.tree import plain, walk

SKIP = "skip"

STAGE_KEY = "only"
"""Stands for the name that the recipe of a stage gives to its stage."""


class StageRun(NamedTuple):
    """One stage of a recipe.

    Attributes:
        name: of the stage, and of its folder.
        overrides: that compose its configuration.
    """

    name: str
    overrides: list[str]


def route_overrides(overrides: Sequence[str], dirs: Sequence[str | Path] = ()) -> list[str]:
    """Return overrides in which those for one stage of a recipe stand under `stages`.

    Raises:
        ConfigError: the recipe does not exist.
    """
    return next(route_jobs([overrides], dirs))


def route_jobs(jobs: Iterable[Sequence[str]], dirs: Sequence[str | Path] = ()) -> Iterator[list[str]]:
    """Yield the overrides of each job as `route_overrides` returns them; a recipe is composed once.

    Raises:
        ConfigError: a recipe does not exist.
    """
    stages: dict[str, Mapping[str, Any]] = {}
    for overrides in jobs:
        recipe = next((one for one in reversed(overrides) if one.startswith("recipe=") and "," not in one), None)
        if recipe is None:
            yield [*overrides]
            continue
        if recipe not in stages:
            stages[recipe] = compose(recipe, dirs=dirs).stages
        yield [_routed(one, stages[recipe]) for one in overrides]


def _routed(override: str, names: Mapping[str, Any]) -> str:
    group, _, rest = override.partition(".")
    name, dot, knob = rest.partition(".")
    if group not in ("stage", "stages") or name not in names or not dot:
        return override
    inner = "" if group == "stages" or knob.startswith(f"{SKIP}=") else f"stage.{STAGE_KEY}."
    return f"++stages.{name}.{inner}{knob}"


def stage_runs(
    stages: Mapping[str, Mapping[str, Any]], overrides: Sequence[str], folder: Path, *, searchpath: Sequence[str] = ()
) -> Iterator[StageRun]:
    """Yield the runs of a recipe in their order.

    Args:
        stages: of the composed configuration.
        overrides: that composed it.
        folder: of the whole; each stage has a folder of its name in it.
        searchpath: overrides of Hydra that name further folders of cards.

    Raises:
        ConfigError: all stages are skipped, or a stage names no recipe.
    """
    ours = ("recipe=", "out=", "stages.", "++stages.", "+stages.", "model=")
    model = [one for one in overrides if one.startswith("model=")]
    shared = [one for one in overrides if not one.startswith(ours)]
    previous: Path | None = None
    for name, settings in stages.items():
        own = {path: value for path, value in _settings(settings) if path != SKIP}
        if settings.get(SKIP):
            continue
        if "recipe" not in own:
            raise ConfigError(f"stages.{name} names no recipe; set stages.{name}.recipe=NAME")
        rest = [one for one in shared if previous is None or not one.startswith(("weights.", "weights="))]
        start = [] if previous is None else [f"weights.model={previous}"]
        first = [*searchpath, *model, f"recipe={own.pop('recipe')}"]
        [key] = compose(*first).stage
        own = {path.replace(f"stage.{STAGE_KEY}.", f"stage.{key}."): value for path, value in own.items()}
        yield StageRun(
            name, [*first, *rest, *(f"{path}={override_text(value)}" for path, value in own.items()), *start]
        )
        previous = folder / name
    if previous is None:
        raise ConfigError("all stages are skipped; leave one of them")


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Values with their paths; an empty mapping is one."""
    nodes = walk(plain(settings), lists=False)
    return [(path, value) for path, value in nodes if not (isinstance(value, Mapping) and (value or not path))]
