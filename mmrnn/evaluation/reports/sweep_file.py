"""File of a sweep in its folder (`sweep.yaml`): its description, and the overrides of its jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmrnn.checkpoints.config_file import to_yaml
from mmrnn.config.coerce import coerce
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import parameters
from mmrnn.config.sweep import Contrast, contrast_fault
from mmrnn.config.sweep_plan import SweepPlan
from mmrnn.config.yaml_file import read_yaml
from mmrnn.io.atomic import replace_file
from mmrnn.io.lock import lock_folder

SWEEP = "sweep.yaml"

MAX_WAIT = 60.0
"""Seconds that a process waits for another one that extends the same sweep."""


def read_plan(folder: Path) -> SweepPlan | None:
    """Return the sweep that a folder belongs to; None: none.

    Raises:
        ConfigError: its file is damaged.
    """
    path = folder / SWEEP
    if not path.is_file():
        return None
    content = read_yaml(path)
    known = parameters(SweepPlan)
    if others := [name for name in content if name not in known]:
        raise ConfigError(f"{path} is damaged: it has a field {others[0]!r}; restore it, or choose another folder")
    try:
        plan = SweepPlan(**{name: coerce(value, known[name].annotation) for name, value in content.items()})
        for one in plan.contrasts:
            if fault := contrast_fault(Contrast(**one), plan.grid.get(one["group"], ())):
                raise TypeError(fault)
        return plan
    except TypeError as error:
        raise ConfigError(f"{path} is damaged: {error}; restore it, or choose another folder") from error


def record_plan(folder: Path, plan: SweepPlan) -> SweepPlan:
    """Write a sweep into its folder; one that is there already may get further options, seeds and contrasts.

    Returns:
        The sweep with all its jobs, also those of options that are not named any more.

    Raises:
        ConfigError: the folder belongs to another sweep; the message names what differs.
        FolderInUseError: another process has held the folder for a minute.
    """
    with lock_folder(folder, wait=MAX_WAIT):
        return _extend(folder, plan)


def _extend(folder: Path, plan: SweepPlan) -> SweepPlan:
    before = read_plan(folder)
    if before is not None:
        if differing := differences(before, plan):
            raise ConfigError(
                f"{folder} belongs to another sweep (it differs in {'; '.join(differing)}); repeat its command, which "
                f"is in {SWEEP}, or choose another folder (out=...)"
            )
        plan = replace(plan, jobs={**plan.jobs, **_others(before.jobs, plan.jobs)})
    text = to_yaml(asdict(plan))
    replace_file(folder / SWEEP, lambda path: path.write_text(text, encoding="utf-8"), len(text))
    return plan


def differences(before: SweepPlan, now: SweepPlan) -> list[str]:
    """Return in words what makes two descriptions different sweeps; empty: the second one may extend the first."""
    found = []
    if before.card != now.card:
        found.append(f"sweep: {before.card} -> {now.card}")
    if changed := sorted({*before.overrides} ^ {*now.overrides}):
        found.append(f"overrides: {' '.join(changed)}")
    if sorted(before.asked) != sorted(now.asked):
        found.append(f"asked: {' '.join(before.asked)} -> {' '.join(now.asked)}")
    if keys := sorted(before.grid.keys() ^ now.grid.keys()):
        found.append(f"grid: {', '.join(keys)}")
    for key, options in before.vary.items():
        for option, knobs in options.items():
            if now.vary.get(key, {}).get(option) != knobs:
                found.append(f"vary: {key}={option}")
    if [one for one in before.contrasts if one not in now.contrasts]:
        found.append("contrasts: they were written down before the first run, and may be added to alone")
    return found


def _others(before: Mapping[str, Sequence[str]], now: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    return {name: overrides for name, overrides in before.items() if name not in now}
