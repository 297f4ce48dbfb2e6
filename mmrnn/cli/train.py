"""`mmrnn train`: train a model, or a sweep of models; Hydra runs the jobs."""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.cli.options import Forward, Interrupted, Parser, add_overrides, one_of
from mmrnn.cli.processes import start_processes
from mmrnn.config.compose import compose, compose_with_choices, conf_dir, output_dir, search_path, sweep_jobs
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import readable
from mmrnn.config.recipe_stages import route_overrides, stage_runs
from mmrnn.io.lock import LOCK

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mmrnn.training.distributed.world import World

MAX_CHECKED_JOBS = 100
"""Jobs of a sweep that are checked before the first one starts."""

SWEEP = {"-m", "--multirun"}
CFG = ("job", "hydra", "all")


class HydraPassthrough(BaseException):
    """Carries an exception of a run past Hydra, which would print a message of its own."""


def parser() -> Parser:
    """Parser of `mmrnn train`."""
    made = Parser(
        "train",
        "[-m] [OVERRIDE ...] [OPTION ...]",
        """
Train the model that the overrides choose. The run is written to `out` (default: runs/DATE_TIME). Hydra runs the jobs:
overrides of hydra.* are taken as well.
""",
        """
  mmrnn train model=visualrwkv6_small connector=qformer seed=1
  mmrnn train -m connector=linear,mlp seed=1,2,3     a sweep, written to multirun/DATE_TIME
  mmrnn train out=runs/DATE_TIME ...                 resume a run that was stopped
  torchrun --nproc-per-node=8 -m mmrnn train ...     a process for each of 8 GPUs, or srun with 8 tasks
""",
    )
    made.set_defaults(hydra=[])
    add_overrides(made)
    for names, more in (
        (("-m", "--multirun"), {"nargs": 0, "help": "sweep: one job for each combination of comma-separated values"}),
        (
            ("-c", "--cfg"),
            {"type": one_of(CFG), "metavar": "WHAT", "help": "print the configuration (job, hydra or all) and stop"},
        ),
        (("--resolve",), {"nargs": 0, "help": "with --cfg: resolve references"}),
        (("-p", "--package"), {"metavar": "PATH", "help": "with --cfg: print this part of the configuration"}),
        (("-i", "--info"), {"nargs": "?", "metavar": "WHAT", "help": "print information about Hydra and stop"}),
        (("--hydra-help",), {"nargs": 0, "help": "print the help of Hydra and stop"}),
    ):
        made.add_argument(*names, action=Forward, dest="hydra", default=argparse.SUPPRESS, **more)
    return made


def main(arguments: Sequence[str]) -> None:
    """Check every job, then let Hydra run them.

    Raises:
        ConfigError: wrong usage, or the first job that does not fit, before anything is created.
    """
    options = parser().parse(arguments)

    with start_processes() as world:
        if SWEEP.issuperset(options.hydra):
            sweep = bool(options.hydra)
            with world.all_or_none():
                options.overrides = route_overrides(options.overrides, options.dirs)
                every = sweep_jobs(*options.overrides, dirs=options.dirs) if sweep else [options.overrides]
                for one in islice(every, MAX_CHECKED_JOBS):
                    _check(one, options.dirs, sweep, world.size)
            if world.size > 1:
                options.overrides += _same_folder(world, options.overrides, options.dirs, sweep)
        _start_hydra([*options.hydra, *readable(options.overrides), *search_path(options.dirs)])


def _start_hydra(arguments: Sequence[str]) -> None:
    import hydra
    from hydra.errors import HydraException

    with _hydra_arguments(arguments):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
        except HydraException as error:
            raise ConfigError(" ".join(str(error).splitlines()[:2])) from error
        except HydraPassthrough as failure:
            raise failure.__cause__ from None


def _same_folder(world: "World", overrides: Sequence[str], dirs: Sequence[Path], sweep: bool) -> list[str]:
    """Overrides by which all ranks have the folder of rank 0, and the others write nothing into it."""
    folder = world.on_main(lambda: output_dir(*overrides, sweep=sweep, dirs=dirs))
    name = "hydra.sweep.dir" if sweep else "out"
    silent = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    return [f"{name}={folder}", *([] if world.main else silent)]


def _check(overrides: Sequence[str], dirs: Sequence[Path], sweep: bool, processes: int) -> None:
    """Check a job, or every stage of its recipe; a submitted job is checked again where its processes run."""
    from mmrnn.config.tree import plain
    from mmrnn.config.validate import RUN, check

    def check_run(cfg: "DictConfig") -> None:
        check(cfg, trusted=cfg.trusted, needs=RUN)
        if processes > 1:
            from mmrnn.training.distributed.processes import check_processes

            check_processes(plain(cfg), processes)

    job = f"(in the job {shlex.join(overrides)})"
    try:
        cfg = compose(*overrides, dirs=dirs)
        if not cfg.stages:
            check_run(cfg)
        stages = stage_runs(cfg.stages, overrides, Path(cfg.out), searchpath=search_path(dirs)) if cfg.stages else ()
        for stage in stages:
            job = f"(in the stage {stage.name})"
            # The model of the stage before does not exist yet.
            cfg = compose(*(one for one in stage.overrides if not one.startswith("weights.model=")))
            check_run(cfg)
            sweep = True
    except ConfigError as error:
        raise ConfigError(*error.faults, *([job] * sweep)) from error


def job(cfg: "DictConfig") -> Any:
    """Run one job; Hydra and its launchers call it.

    Returns:
        The value that an optimising sweeper minimises.

    Raises:
        Interrupted: with the command that resumes the run.
        HydraPassthrough: around any other exception of a single run.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from mmrnn.io.malloc import tune_malloc
    from mmrnn.training.distributed.world import start_world
    from mmrnn.training.primitive_cache import limit_primitive_caches

    tune_malloc()
    limit_primitive_caches()
    run = HydraConfig.get()
    with start_world() as world:
        cfg.out = world.broadcast(run.runtime.output_dir)
        try:
            return _train_stages(cfg, run, world) if cfg.stages else _train(cfg, _choices(run), world)
        except KeyboardInterrupt as stop:
            from mmrnn.training.ends import StoppedRun

            code = stop.code if isinstance(stop, StoppedRun) else 130
            raise Interrupted(_resume_text(cfg, run, world, str(stop)) if world.main else "", code) from None
        except Exception as error:
            if run.mode == RunMode.RUN or world.size > 1:  # ranks that failed are no longer in step
                raise HydraPassthrough from error
            # A sweep continues with its next job, and Hydra reports failures only at its end.
            logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
            raise


def _train_stages(cfg: "DictConfig", run: Any, world: "World") -> float:
    """Run the stages of a recipe one after the other; the result is that of the last one."""
    folder, objective = Path(cfg.out), 0.0
    for stage in stage_runs(cfg.stages, run.overrides.task, folder, searchpath=_searchpath(run)):
        part, chosen = compose_with_choices(*stage.overrides)
        part.out = str(folder / stage.name)
        objective = _train(part, chosen, world)
    return objective


def _train(cfg: "DictConfig", choices: Mapping[str, str], world: "World") -> float:
    from mmrnn.training.run import train

    folder = Path(cfg.out)
    if world.main:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            # Marks a new folder as one of a run, should the process die while torch is loaded.
            (folder / LOCK).touch()
    return train(cfg, folder, choices, world)


def _choices(run: Any) -> dict[str, str]:
    """Chosen option of every group."""
    return {group: str(name) for group, name in run.runtime.choices.items() if not group.startswith("hydra/")}


def _searchpath(run: Any) -> list[str]:
    return [word for word in run.overrides.hydra if word.startswith("hydra.searchpath=")]


def _resume_text(cfg: "DictConfig", run: Any, world: "World", reason: str) -> str:
    """Sentence that says why a run has ended, and the command that resumes it."""
    chosen = [word for word in run.overrides.task if not word.startswith("out=")]
    chosen += _searchpath(run)
    program = ["mmrnn"] if world.size == 1 else ["torchrun", f"--nproc-per-node={world.size}", "-m", "mmrnn"]
    again = shlex.join([*program, "train", f"out={cfg.out}", *chosen])
    return f"{reason or 'stopped'}; resume with: {again}"


@contextmanager
def _hydra_arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Set `sys.argv`, from which Hydra takes its arguments, and let it pass exceptions on."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["mmrnn train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR") if full_error is None else os.environ.update(HYDRA_FULL_ERROR=full_error)
