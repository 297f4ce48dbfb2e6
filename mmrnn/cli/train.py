"""`mmrnn train`: train a model, or a sweep of models; Hydra runs the jobs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.job import check_job, start_hydra
from mmrnn.cli.options import Forward, Parser, add_overrides, one_of
from mmrnn.cli.processes import start_processes
from mmrnn.cli.sweep_run import run_sweep, silent
from mmrnn.config.compose import output_dir, search_path
from mmrnn.config.overrides import readable
from mmrnn.config.recipe_stages import route_overrides

if TYPE_CHECKING:
    from mmrnn.training.distributed.world import World

SWEEP = {"-m", "--multirun"}
CFG = ("job", "hydra", "all")


def parser() -> Parser:
    """Parser of `mmrnn train`."""
    made = Parser(
        "train",
        "[-m] [OVERRIDE ...] [OPTION ...]",
        """
Train the model that the overrides choose. The run is written to `out` (default: runs/DATE_TIME). Hydra runs the jobs:
overrides of hydra.* are taken as well. A sweep whose folder (out=DIR) holds jobs of it runs the others.
""",
        """
  mmrnn train model=visualrwkv6_small connector=qformer seed=1
  mmrnn train -m connector=linear,mlp seed=1,2,3     a sweep, written to multirun/DATE_TIME
  mmrnn train -m sweep=prompt                        one of a file, written to multirun/prompt; again, it resumes
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


def main(arguments: Sequence[str]) -> int:
    """Check every job, then let Hydra run them.

    Returns:
        The exit code.

    Raises:
        ConfigError: wrong usage, or the first job that does not fit, before anything is created.
    """
    options = parser().parse(arguments)
    with start_processes() as world:
        if options.hydra and SWEEP.issuperset(options.hydra):
            return run_sweep(options.overrides, options.dirs, world)
        words = options.overrides
        if not options.hydra:
            with world.all_or_none():
                words = route_overrides(words, options.dirs)
                check_job(words, options.dirs, processes=world.size)
            if world.size > 1:
                words = [*words, *_same_folder(world, words, options.dirs)]
        start_hydra([*options.hydra, *readable(words), *search_path(options.dirs)])
    return 0


def _same_folder(world: "World", overrides: Sequence[str], dirs: Sequence[Path]) -> list[str]:
    """Overrides by which all ranks have the folder of rank 0, and the others write nothing into it."""
    folder = world.on_main(lambda: output_dir(*overrides, sweep=False, dirs=dirs))
    return [f"out={folder}", *silent(world)]
