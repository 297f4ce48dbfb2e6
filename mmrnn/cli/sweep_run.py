"""Sweep of `mmrnn train -m`: its jobs are planned and checked, and Hydra runs those that are not finished."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.job import JOB_KEY, check_job, start_hydra
from mmrnn.config.compose import compose, output_dir, search_path, sweep_jobs
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key, readable
from mmrnn.config.tree import plain

if TYPE_CHECKING:
    from mmrnn.config.sweep import Sweep
    from mmrnn.config.sweep_plan import SweepPlan
    from mmrnn.evaluation.sweeps.job_status import JobStatus
    from mmrnn.training.distributed.world import World

MAX_CHECKED_JOBS = 100
"""Jobs of a sweep that are checked before the first one starts."""

FOLDER_KEYS, SEARCH_PATH = ("out", "hydra.sweep.dir"), "hydra.searchpath"
SWEEPER, BASIC = "hydra/sweeper", "basic"
STATES = ("finished", "running", "stopped", "failed", "not begun")


def run_sweep(words: Sequence[str], dirs: Sequence[Path], world: "World") -> int:
    """Run the jobs of a sweep that are not finished; a job that fails is named, and the others are run.

    Args:
        words: overrides of the command line.
        dirs: further folders of cards.
        world: the processes.

    Returns:
        The exit code: 1 where a job has failed.

    Raises:
        ConfigError: wrong usage, the first job that does not fit, or the folder belongs to another sweep.
        Interrupted: a signal has stopped it.
    """
    from mmrnn.config.sweep_plan import crossed, own_overrides
    from mmrnn.evaluation.reports.sweep_file import record_plan

    with world.all_or_none():
        card, sweep = _card(words, dirs)
        plan = _plan(words, dirs, card, sweep)
    folder = Path(world.on_main(lambda: _folder(words, dirs, card)))
    before = world.on_main(lambda: _states(folder, plan))
    waiting = [one for one in before if one.state != "finished"]
    given = [*own_overrides(sweep, words), *_given(words), *crossed(sweep)]
    with world.all_or_none():
        jobs = [one.overrides for one in waiting] if plan.jobs else sweep_jobs(*given, dirs=dirs)
        paths = [word for word in words if override_key(word) == SEARCH_PATH]
        for overrides in islice(jobs, MAX_CHECKED_JOBS):
            check_job([*paths, *overrides], dirs, processes=world.size, of_several=True)
    recorded = world.on_main(lambda: record_plan(folder, plan))
    for one in before if world.main else ():
        if one.state == "finished":
            print(f"finished before: {one}")
    chosen = [f"{JOB_KEY}={','.join(one.name for one in waiting)}"] if plan.jobs else given
    fault = None
    if waiting or not plan.jobs:
        hydra = [
            word for word in words if override_key(word).startswith("hydra") and override_key(word) not in FOLDER_KEYS
        ]
        more = [f"hydra.sweep.dir={folder}", *silent(world), *search_path(dirs)]
        fault = _start([*chosen, *hydra, *more], JOB_KEY if plan.jobs else "train", world)
    return _end(folder, recorded, plan, fault) if world.main else 0


def _start(words: Sequence[str], config: str, world: "World") -> Exception | None:
    """Let Hydra run the jobs; return what a launcher or a sweeper raised: the faults of jobs are in their folders."""
    try:
        start_hydra(["-m", *readable(words)], config)
    except ConfigError:
        raise
    except Exception as error:
        if world.size > 1:  # ranks that failed are no longer in step
            raise
        return error
    return None


def silent(world: "World") -> list[str]:
    """Return overrides by which Hydra writes nothing in the processes beside the first one."""
    return [] if world.main else ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]


def _card(words: Sequence[str], dirs: Sequence[Path]) -> "tuple[str | None, Sweep | None]":
    """Name and content of the card of the sweep, with the overrides of its fields."""
    from mmrnn.config.sweep import read_sweep

    own = [word for word in words if override_key(word) == "sweep" or override_key(word).startswith("sweep.")]
    if not own:
        return None, None
    names = [word.partition("=")[2] for word in own if override_key(word) == "sweep"]
    if len(names) != 1 or "," in names[0]:
        raise ConfigError(f"{' '.join(own)}: name one sweep, as in `mmrnn train -m sweep=prompt`")
    paths = [word for word in words if override_key(word) == SEARCH_PATH]
    tree = plain(compose(*paths, *own, dirs=dirs).get("sweep"))
    narrowed = any(override_key(word).startswith("sweep.grid") for word in own)
    whole = plain(compose(*paths, f"sweep={names[0]}", dirs=dirs)["sweep"])["grid"] if narrowed else {}
    return names[0], read_sweep(tree, whole)


def _plan(words: Sequence[str], dirs: Sequence[Path], card: str | None, sweep: "Sweep | None") -> "SweepPlan":
    from mmrnn.config.sweep_plan import plan_sweep
    from mmrnn.training.saving.run_config import MAY_CHANGE

    sweepers = [word.partition("=")[2] for word in words if override_key(word) == SWEEPER]
    if any(override_key(word) == "hydra.sweep.subdir" for word in words):
        raise ConfigError("hydra.sweep.subdir: a job's folder is named by a hash of its overrides; remove it")
    plan = plan_sweep(
        _given(words), sweep, card=card, dirs=dirs, same=MAY_CHANGE, jobs=not sweepers or sweepers[-1] == BASIC
    )
    folders = [word for folder in dirs for word in ("--config-dir", str(folder.resolve()))]
    return replace(plan, command=[*folders, *(word for word in words if override_key(word) not in FOLDER_KEYS)])


def _given(words: Sequence[str]) -> list[str]:
    """Overrides that hold for jobs."""
    return [
        word
        for word in words
        if (key := override_key(word)).partition(".")[0] not in ("out", "sweep")
        and (not key.startswith("hydra") or key == SEARCH_PATH)
    ]


def _folder(words: Sequence[str], dirs: Sequence[Path], card: str | None) -> str:
    """Folder of the sweep: as the command line says; else that of its card, or one of its own."""
    chosen = [f"hydra.sweep.dir={word.partition('=')[2]}" for word in words if override_key(word) in FOLDER_KEYS]
    if not chosen and card:
        chosen = [f"hydra.sweep.dir=multirun/{card}"]
    # A launcher or sweeper that is not installed is found here, before anything is created.
    others = [word for word in words if (key := override_key(word)).startswith("hydra") and key not in FOLDER_KEYS]
    return output_dir(*others, *chosen[-1:], sweep=True, dirs=dirs)


def _states(folder: Path, plan: "SweepPlan") -> "list[JobStatus]":
    from mmrnn.evaluation.sweeps.job_status import job_status

    try:
        return [job_status(folder / name, plan) for name in plan.jobs]
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault


def _end(folder: Path, recorded: "SweepPlan", asked: "SweepPlan", fault: Exception | None) -> int:
    """Write the table of results, count the jobs, and name those that are not finished; return the exit code."""
    from mmrnn.evaluation.sweeps.results_file import RESULTS, write_results

    states = write_results(folder, recorded)
    print(f"{folder}: {counted(states)}; results: {folder / RESULTS}")
    sys.stdout.flush()
    if fault is not None:
        print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
    asked_for = [one for one in states if not asked.jobs or one.name in asked.jobs]
    wrong = [one for one in asked_for if one.state not in ("finished", "running")]
    if wrong:
        named = "; ".join(f"{one} {one.state}" + (f": {one.reason}" if one.reason else "") for one in wrong)
        print(f"mmrnn: {len(wrong)} of {len(asked_for)} jobs are not finished: {named}", file=sys.stderr)
    return int(bool(wrong or fault))


def counted(states: "Sequence[JobStatus]") -> str:
    """Return the number of jobs in each state."""
    found = [one.state for one in states]
    return ", ".join(f"{found.count(state)} {state}" for state in STATES if state in found) or "no jobs"
