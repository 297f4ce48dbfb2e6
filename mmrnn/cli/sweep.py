"""`mmrnn sweep`: how far a sweep is, its continuation, and its results for good."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli import train
from mmrnn.cli.options import Parser, add_overrides, one_of, to_path
from mmrnn.cli.sweep_run import counted
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import override_key

if TYPE_CHECKING:
    from mmrnn.config.sweep_plan import SweepPlan

ACTIONS = ("status", "rerun", "ask", "store")


def parser() -> Parser:
    """Parser of `mmrnn sweep`."""
    made = Parser(
        "sweep",
        "status|rerun|ask|store DIR [FOLDER] [OVERRIDE ...]",
        """
status: print the state of every job of a sweep (finished, running, stopped, failed, not begun) with the reason, and
write the table of its results (results.jsonl).
rerun: repeat its command: finished jobs are skipped, stopped ones resume, failed ones are tried again.
ask: ask its finished runs again without training, with the settings evaluate.KNOB=VALUE and for the options KEY=OPTION
of its grid; the answers are those of a sweep in FOLDER.
store: write its results into FOLDER, small enough to be kept: its file, a row a run, and which answers were right; runs
that are stored there already, as of other seeds, stay.
""",
        """
  mmrnn sweep status multirun/prompt
  mmrnn sweep rerun multirun/prompt
  mmrnn sweep rerun multirun/prompt hydra/launcher=joblib hydra.launcher.n_jobs=2
  mmrnn sweep ask multirun/prompt multirun/forget evaluate.distance=[100,1000] prompt=first,sandwich
  mmrnn sweep store multirun/prompt evidence/prompt
""",
    )
    made.add_argument("action", type=one_of(ACTIONS), metavar="ACTION", help="status, rerun, ask or store")
    made.add_argument("folder", type=to_path, metavar="DIR", help="folder of the sweep")
    add_overrides(made)
    return made


def main(arguments: Sequence[str]) -> int:
    """Print the state of a sweep, or repeat its command.

    Returns:
        The exit code.

    Raises:
        ConfigError: wrong usage, or the folder holds no sweep.
    """
    options = parser().parse(arguments)

    from mmrnn.evaluation.reports.sweep_file import SWEEP, read_plan

    plan = read_plan(options.folder)
    if plan is None:
        raise ConfigError(f"{options.folder}: it holds no {SWEEP}; name the folder of a sweep of `mmrnn train -m`")
    if options.action == "status":
        if options.overrides:
            raise ConfigError(f"{options.overrides[0]}: one word too many; the usage is `mmrnn sweep status DIR`")
        _print_status(options.folder, plan)
        return 0
    if options.action == "store":
        if len(options.overrides) != 1 or "=" in options.overrides[0]:
            raise ConfigError("store: name one folder for the results: `mmrnn sweep store DIR FOLDER`")
        _store(options.folder, plan, Path(options.overrides[0]))
        return 0
    if options.action == "ask":
        to, *words = options.overrides or [""]
        if not to or "=" in to or not all("=" in word for word in words):
            raise ConfigError("ask: name a folder, then settings: `mmrnn sweep ask DIR FOLDER evaluate.KNOB=VALUE`")
        _ask(options.folder, plan, Path(to), words)
        return 0
    keys = {override_key(word) for word in options.overrides}
    before = [word for word in plan.command if override_key(word) not in keys]
    further = [word for folder in options.dirs for word in ("--config-dir", str(folder))]
    return train.main(["-m", *before, *further, *options.overrides, f"out={options.folder}"])


def _ask(folder: Path, plan: "SweepPlan", to: Path, words: Sequence[str]) -> None:
    from mmrnn.evaluation.sweeps.ask_again import ask_again

    try:
        for line in ask_again(folder, plan, to, words):
            print(line, flush=True)
    except ConfigError:
        raise
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    print(to)


def _store(folder: Path, plan: "SweepPlan", to: Path) -> None:
    from mmrnn.evaluation.sweeps.store import store_sweep

    try:
        print(*store_sweep(folder, plan, to), sep="\n")
    except (ValueError, ImportError) as fault:
        raise ConfigError(str(fault)) from fault
    print(to)


def _print_status(folder: Path, plan: "SweepPlan") -> None:
    from mmrnn.evaluation.sweeps.results_file import RESULTS, write_results

    try:
        states = write_results(folder, plan)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    width = max((len(one.label) for one in states), default=0)
    for one in states:
        reason = " ".join(one.reason.split())
        print(f"{one.state:<9}  {one.name}  {one.label:<{width}}  {reason}".rstrip())
    print(f"{counted(states)}; results: {folder / RESULTS}")
