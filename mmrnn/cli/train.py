"""mmrnn train [-m] [OVERRIDE ...]

Train the model that the overrides choose; the run is written to `out` (runs/DATE_TIME).

  mmrnn train model=visualrwkv6_small connector=qformer seed=1
  mmrnn train -m connector=linear,mlp seed=1,2,3     a sweep, written to multirun/DATE_TIME
  mmrnn train out=runs/DATE_TIME ...                 go on with a run that was stopped

Hydra runs it: --cfg job, --info, --hydra-help and overrides of hydra.* work as everywhere.
"""

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.config.compose import compose, conf_dir, jobs, searchpath
from mmrnn.config.error import ConfigError
from mmrnn.config.validate import check

if TYPE_CHECKING:
    from omegaconf import DictConfig

MAX_CHECKED_JOBS = 100
"""So many jobs of a sweep are looked at before the first one starts."""

SWEEP = {"-m", "--multirun"}


class HydraPassthrough(BaseException):
    """Carries what a run raised past Hydra, which would announce it in words of its own."""


def main(arguments: Sequence[str], dirs: Sequence[str] = ()) -> None:
    """Check every job, then let Hydra run them.

    Raises:
        ConfigError: the first job that does not fit, before anything is made.
    """
    overrides = [word for word in arguments if not word.startswith("-")]
    options = {word for word in arguments if word.startswith("-")}
    if options <= SWEEP:
        every = jobs(*overrides, dirs=dirs) if options else [overrides]
        for one in islice(every, MAX_CHECKED_JOBS):
            _check(one, dirs, sweep=bool(options))
    import hydra
    from hydra.errors import HydraException

    with _hydra_reads([*arguments, *searchpath(dirs)]):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
        except HydraException as error:
            raise ConfigError(" ".join(str(error).splitlines()[:2])) from error
        except HydraPassthrough as failure:
            raise failure.__cause__ from None


def _check(overrides: Sequence[str], dirs: Sequence[str], sweep: bool) -> None:
    try:
        cfg = compose(*overrides, dirs=dirs)
        check(cfg, trusted=cfg.trusted)
    except ConfigError as error:
        raise ConfigError(*error.faults, *([f"(in the job {shlex.join(overrides)})"] * sweep)) from error


def job(cfg: "DictConfig") -> Any:
    """One run: what Hydra and its launchers call. What it answers is what an optimising sweeper minimises."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from mmrnn.training.malloc import tune_malloc
    from mmrnn.training.run import train

    tune_malloc()
    run = HydraConfig.get()
    cfg.out = run.runtime.output_dir
    choices = {group: str(name) for group, name in run.runtime.choices.items() if not group.startswith("hydra/")}
    try:
        return train(cfg, Path(cfg.out), choices)
    except KeyboardInterrupt:
        chosen = [word for word in run.overrides.task if not word.startswith("out=")]
        chosen += [word for word in run.overrides.hydra if word.startswith("hydra.searchpath=")]
        again = shlex.join(["mmrnn", "train", f"out={cfg.out}", *chosen])
        raise KeyboardInterrupt(f"stopped; this goes on with the run: {again}") from None
    except Exception as error:
        if run.mode == RunMode.RUN:
            raise HydraPassthrough from error
        # A sweep goes on with its next job, and Hydra tells of failures at its end only.
        logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
        raise


@contextmanager
def _hydra_reads(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra takes its arguments from `sys.argv`, and hands exceptions on only if its environment says so."""
    argv, told = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["mmrnn train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR") if told is None else os.environ.update(HYDRA_FULL_ERROR=told)
