"""Jobs of a sweep: all combinations of what its file and the command line name."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from mmrnn.config.compose import override_axes
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key, override_text
from mmrnn.config.recipe_stages import route_jobs
from mmrnn.config.sweep import SEED, Contrast, Sweep

MAX_JOBS = 10_000


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A sweep and its jobs.

    Attributes:
        card: name of its file in `conf/sweep`; None: it comes from the command line alone.
        overrides: that all jobs have, but for settings with which a run computes the same.
        grid: key -> values that are crossed, as words of Hydra.
        more_seeds: of the card.
        vary: of the card.
        contrasts: of the card.
        note: of the card.
        command: words of the command line.
        jobs: name of a job, and of its folder -> its overrides.
        asked: settings of `evaluate` with which its finished runs were asked again; empty: they were not.
    """

    card: str | None = None
    overrides: Sequence[str] = ()
    grid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    more_seeds: Sequence[int] = ()
    vary: Mapping[str, Any] = field(default_factory=dict)
    contrasts: Sequence[Mapping[str, Any]] = ()
    note: str = ""
    command: Sequence[str] = ()
    jobs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    asked: Sequence[str] = ()


def plan_sweep(
    words: Sequence[str],
    sweep: Sweep | None = None,
    *,
    card: str | None = None,
    dirs: Sequence[str | Path] = (),
    same: Collection[str] = (),
    jobs: bool = True,
) -> SweepPlan:
    """Cross what a sweep and the command line name. The overrides of the command line stand before the grid.

    Args:
        words: overrides of the command line, without those of Hydra, `out` and `sweep`.
        sweep: of the card; None: none.
        card: its name.
        dirs: further folders of cards.
        same: settings and groups with which a run computes the same: they do not name a job.
        jobs: make them; an optimising sweeper chooses its own.

    Raises:
        ConfigError: an override cannot be parsed, the grid and the command line set the same key, or there are more
            than `MAX_JOBS` jobs.
    """
    grid = sweep.axes if sweep else {}
    if twice := [word for word in words if override_key(word) in grid]:
        key = override_key(twice[0])
        where = "sweep.seeds=[...]" if key == SEED and sweep and sweep.seeds else f"sweep.grid.{key}=[...]"
        raise ConfigError(f"{twice[0]}: the sweep crosses {key}; set {where} in its place")
    axes = override_axes(*own_overrides(sweep, words), *words, *crossed(sweep), dirs=dirs)
    axes = {key: found for key, found in axes.items() if not key.startswith("hydra")}
    swept = {key: found for key, found in axes.items() if key in grid or len(found) > 1}
    base = [word for key, found in axes.items() if key not in swept for word in found]
    number = prod(map(len, swept.values())) if jobs else 0
    if number > MAX_JOBS:
        raise ConfigError(f"the sweep makes {number:,} jobs; cross fewer values (at most {MAX_JOBS:,} jobs)")
    vary = sweep.vary if sweep else {}
    combinations = product(*swept.values()) if jobs else ()
    routed = route_jobs(([*base, *chosen, *varied(chosen, vary)] for chosen in combinations), dirs)
    return SweepPlan(
        card=card,
        overrides=naming(base, (), same),
        grid={key: [word.partition("=")[2] for word in found] for key, found in swept.items()},
        more_seeds=[*sweep.more_seeds] if sweep else [],
        vary={key: {str(option): dict(knobs) for option, knobs in options.items()} for key, options in vary.items()},
        contrasts=[_plain(one) for one in sweep.contrasts] if sweep else [],
        note=sweep.note if sweep else "",
        jobs={job_name(naming(job, swept, same)): job for job in routed},
    )


def own_overrides(sweep: Sweep | None, words: Sequence[str]) -> list[str]:
    """Return the overrides that a sweep has for every job, without those that the command line gives."""
    given = {override_key(word) for word in words}
    fixed = sweep.overrides if sweep else {}
    return [f"{key}={override_text(value)}" for key, value in fixed.items() if key not in given]


def crossed(sweep: Sweep | None) -> list[str]:
    """Return what a sweep crosses as overrides with several values."""
    axes = sweep.axes if sweep else {}
    return [f"{key}={','.join(map(override_text, values))}" for key, values in axes.items()]


def naming(overrides: Sequence[str], swept: Collection[str], same: Collection[str]) -> list[str]:
    """Return the overrides that name a job: without settings with which a run computes the same, unless swept over."""
    return [word for word in overrides if (key := override_key(word)) in swept or key.partition(".")[0] not in same]


def job_name(overrides: Sequence[str]) -> str:
    """Return the name of a job by a hash of its overrides in any order. It is no number in any notation."""
    return f"job_{sha256(json.dumps(sorted(overrides)).encode()).hexdigest()[:12]}"


def varied(chosen: Sequence[str], vary: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> list[str]:
    """Return the overrides that go with the chosen options.

    Args:
        chosen: overrides of a job, `connector=mlp`.
        vary: of the sweep.
    """
    given = {override_key(word): word.partition("=")[2] for word in chosen}
    return [
        f"{knob}={override_text(value)}"
        for key, options in vary.items()
        for option, knobs in options.items()
        if given.get(key) == override_text(option)
        for knob, value in knobs.items()
    ]


def label(overrides: Sequence[str], grid: Collection[str]) -> str:
    """Return a job in words: those of its overrides that the sweep crosses; all, where it crosses none."""
    return " ".join([word for word in overrides if override_key(word) in grid] or overrides)


def _plain(contrast: Contrast) -> dict[str, Any]:
    found = {one.name: getattr(contrast, one.name) for one in fields(contrast)}
    return {name: value for name, value in found.items() if value is not None}
