"""Job of `mmrnn train`, which Hydra and its launchers call: a single run, or one of a sweep."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.cli.options import Interrupted
from mmrnn.config.compose import chosen_options, compose, compose_with_choices, conf_dir, hydra_fault, search_path
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key
from mmrnn.config.recipe_stages import SKIP, stage_runs
from mmrnn.io.lock import LOCK, FolderInUseError, lock_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mmrnn.config.sweep_plan import SweepPlan
    from mmrnn.training.distributed.world import World

log = logging.getLogger(__name__)

FEATURES = "features"
"""Folder in that of a sweep for the features that its jobs share."""

JOB_KEY = "sweep_job"
"""Root file in `conf/` for the jobs of a sweep, and its key by which Hydra is told their names."""


class HydraPassthrough(BaseException):
    """Carries an exception of a run past Hydra, which would print a message of its own."""


def start_hydra(arguments: Sequence[str], config: str = "train") -> None:
    """Let Hydra run jobs.

    Args:
        arguments: of its command line.
        config: root file in `conf/`.

    Raises:
        ConfigError: Hydra refuses the arguments.
        Interrupted: a signal has stopped a job.
    """
    import hydra
    from hydra.errors import HydraException

    with _hydra_arguments(arguments):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config)(job)()
        except HydraException as error:
            raise hydra_fault(error) from error
        except HydraPassthrough as failure:
            raise failure.__cause__ from None


def check_job(overrides: Sequence[str], dirs: Sequence[Path], *, processes: int, of_several: bool = False) -> None:
    """Check a job, or every stage of its recipe; a submitted job is checked again where its processes run.

    Args:
        overrides: of the job.
        dirs: further folders of cards.
        processes: that run it.
        of_several: name the job where it does not fit.

    Raises:
        ConfigError: it does not fit.
    """
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
        if cfg.get("sweep"):
            raise ConfigError("sweep: it makes several jobs; write `mmrnn train -m`")
        if not cfg.stages:
            check_run(cfg)
        stages = stage_runs(cfg.stages, overrides, Path(cfg.out), searchpath=search_path(dirs)) if cfg.stages else ()
        for stage in stages:
            job = f"(in the stage {stage.name})"
            # The model of the stage before does not exist yet.
            cfg = compose(*(one for one in stage.overrides if not one.startswith("weights.model=")))
            check_run(cfg)
            of_several = True
    except ConfigError as error:
        raise ConfigError(*error.faults, *([job] * of_several)) from error


def job(cfg: "DictConfig") -> float | None:
    """Run one job; Hydra and its launchers call it.

    Returns:
        The value that an optimising sweeper minimises; None for a job of a sweep that failed.

    Raises:
        Interrupted: with the command that resumes.
        HydraPassthrough: around any other exception of a single run.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from mmrnn.io.malloc import tune_malloc
    from mmrnn.training.distributed.world import start_world
    from mmrnn.training.ends import exit_as_orphan
    from mmrnn.training.primitive_cache import limit_primitive_caches

    tune_malloc()
    limit_primitive_caches()
    run = HydraConfig.get()
    with exit_as_orphan(), start_world() as world:
        folder = world.broadcast(run.runtime.output_dir)
        try:
            if run.mode == RunMode.MULTIRUN:
                return _sweep_job(cfg, Path(folder), run, world)
            cfg.out = folder
            if cfg.stages:
                return _train_stages(cfg, run.overrides.task, run, world)
            return _train(cfg, _choices(run), world)
        except KeyboardInterrupt as stop:
            from mmrnn.training.ends import StoppedRun

            code = stop.code if isinstance(stop, StoppedRun) else 130
            raise Interrupted(_resume_text(folder, run, world, str(stop)) if world.main else "", code) from None
        except Exception as error:
            raise HydraPassthrough from error


def _sweep_job(cfg: "DictConfig", root: Path, run: Any, world: "World") -> float | None:
    """Run a job of a sweep, unless it is finished or another process is at it.

    Returns:
        Its objective; None where it has failed or is left to another process. Optuna counts that as a failed trial and
        tries others; NaN would end its study.
    """
    from mmrnn.config.sweep_plan import label
    from mmrnn.evaluation.reports.run_folder import read_result, remove_failure
    from mmrnn.evaluation.reports.sweep_file import read_plan
    from mmrnn.evaluation.sweeps.job_status import job_status

    plan = world.on_main(lambda: read_plan(root))
    if plan is None:
        raise ConfigError(f"{root} holds no sweep.yaml; start the sweep with `mmrnn train -m`")
    name, overrides = _identity(cfg, run, plan)
    folder = root / name
    status = replace(world.on_main(lambda: job_status(folder, plan)), label=label(overrides, plan.grid))
    if status.state == "finished":
        log.info("finished before: %s", status)
        return world.on_main(lambda: read_result(status.result)["objective"])
    if status.state == "running":
        log.info("left alone: %s is %s", status, status.reason)
        return None
    log.info("%s", status)
    try:
        with ExitStack() as stack:
            world.on_main(lambda: remove_failure(folder))
            return _train_in_sweep(folder, overrides, run, world, stack)
    except FolderInUseError as fault:
        if world.size > 1:
            raise
        log.info("left alone: %s: %s", status, fault)
    except Exception as error:
        if world.size > 1:  # ranks that failed are no longer in step
            raise
        _note_failure(folder, error, overrides)
        # Hydra reports failures only at the end of the sweep.
        log.error("%s failed: %s: %s", status, type(error).__name__, error)
    return None


def _identity(cfg: "DictConfig", run: Any, plan: "SweepPlan") -> tuple[str, Sequence[str]]:
    """Name of a job, and its overrides: as they are planned, or as an optimising sweeper has chosen them."""
    from mmrnn.config.sweep_plan import job_name, naming, varied
    from mmrnn.training.saving.run_config import MAY_CHANGE

    if JOB_KEY in cfg:
        return cfg[JOB_KEY], plan.jobs[cfg[JOB_KEY]]
    chosen = [word for word in run.overrides.task if override_key(word).partition(".")[0] not in ("out", "sweep")]
    overrides = [*chosen, *varied(chosen, plan.vary)]
    return job_name(naming(overrides, plan.grid, MAY_CHANGE)), overrides


def _train_in_sweep(folder: Path, overrides: Sequence[str], run: Any, world: "World", stack: ExitStack) -> float:
    from mmrnn.evaluation.sweeps.job_status import begin_job

    cfg, choices = compose_with_choices(*_searchpath(run), *overrides)
    cfg.out, cfg.feature_folder = str(folder), cfg.feature_folder or str(folder.parent / FEATURES)
    stages = [name for name, settings in cfg.stages.items() if not settings.get(SKIP)]
    if world.main:
        if stages:  # each of them locks its own folder alone
            stack.enter_context(lock_folder(folder))
        begin_job(folder, overrides, stages[-1] if stages else ".")
    return _train_stages(cfg, overrides, run, world) if stages else _train(cfg, choices, world)


def _note_failure(folder: Path, error: Exception, overrides: Sequence[str]) -> None:
    """Write the failure of a job: where its run, or a stage of its recipe, has noted it."""
    from mmrnn.evaluation.reports.run_folder import FAILURE, write_failure

    noted = sorted(folder.glob(f"*/{FAILURE}"))
    write_failure(noted[-1].parent if noted else folder, error, overrides)


def _train_stages(cfg: "DictConfig", overrides: Sequence[str], run: Any, world: "World") -> float:
    """Run the stages of a recipe one after the other; the result is that of the last one."""
    folder, objective = Path(cfg.out), 0.0
    for stage in stage_runs(cfg.stages, overrides, folder, searchpath=_searchpath(run)):
        part, chosen = compose_with_choices(*stage.overrides)
        part.out, part.feature_folder = str(folder / stage.name), part.feature_folder or cfg.feature_folder
        objective = _train(part, chosen, world)
    return objective


def _train(cfg: "DictConfig", choices: Mapping[str, str], world: "World") -> float:
    from mmrnn.evaluation.sweeps.job_status import JOB
    from mmrnn.training.run import train

    folder = Path(cfg.out)
    if world.main:
        folder.mkdir(parents=True, exist_ok=True)
        if all(path.name == JOB for path in folder.iterdir()):
            # Marks a new folder as one of a run, should the process die while torch is loaded.
            (folder / LOCK).touch()
    return train(cfg, folder, choices, world)


def _choices(run: Any) -> dict[str, str]:
    return chosen_options(run.runtime.choices)


def _searchpath(run: Any) -> list[str]:
    return [word for word in run.overrides.hydra if word.startswith("hydra.searchpath=")]


def _resume_text(folder: str, run: Any, world: "World", reason: str) -> str:
    """Sentence that says why a run or a sweep has ended, and the command that resumes it."""
    from hydra.types import RunMode

    program = ["mmrnn"] if world.size == 1 else ["torchrun", f"--nproc-per-node={world.size}", "-m", "mmrnn"]
    if run.mode == RunMode.MULTIRUN:
        again = [*program, "sweep", "rerun", folder]
    else:
        chosen = [word for word in run.overrides.task if not word.startswith("out=")]
        again = [*program, "train", f"out={folder}", *chosen, *_searchpath(run)]
    return f"{reason or 'stopped'}; resume with: {shlex.join(again)}"


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
