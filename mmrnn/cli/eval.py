"""`mmrnn eval`: put benchmarks to trained models."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.cli.ask import RUNS, newest
from mmrnn.cli.options import Parser, add_overrides
from mmrnn.cli.processes import start_processes
from mmrnn.config.compose import compose_with_choices, sweep_jobs
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import Tree, plain
from mmrnn.io.malloc import tune_malloc

if TYPE_CHECKING:
    from mmrnn.inference.assistant import Assistant
    from mmrnn.inference.beam_search import BeamSearch
    from mmrnn.training.distributed.world import World


def parser() -> Parser:
    """Parser of `mmrnn eval`."""
    made = Parser(
        "eval",
        "task=NAME[,NAME...] [run=RUN[,RUN...]] [root=DIR] [OVERRIDE ...] [OPTION ...]",
        """
Put benchmarks to trained models: every task to every run. Answers, scores and files for servers are written to
eval/TASK in the folder of the run. A command that was stopped continues when it is repeated. The files of a benchmark
are looked for in `root`; `mmrnn list task` shows the benchmarks, conf/task/NAME.yaml the files of one.
""",
        """
  mmrnn eval task=gqa,pope run=runs/2026-01-31_12-00-00 root=playground/data/eval
  mmrnn eval task=scienceqa rank=true                 the likeliest option, of the newest run
  mmrnn eval task=coco_caption num_beams=5 min_new_tokens=8 run=RUN    beam search, as BLIP-2 is evaluated
  mmrnn eval task=files task.reader.file=mine.jsonl   questions of your own
  torchrun --nproc-per-node=8 -m mmrnn eval ...       a process for each of 8 GPUs
""",
    )
    add_overrides(made)
    made.add_argument("-m", "--multirun", action="store_true", help="as in `mmrnn train`; commas sweep without it, too")
    return made


def main(arguments: Sequence[str]) -> int:
    """Check every job, then do them one after the other; a job that fails is named, and the others are done.

    Returns:
        The exit code.

    Raises:
        ConfigError: wrong usage, or the first job that does not fit.
    """
    from mmrnn.config.validate import check_eval

    options = parser().parse(arguments)
    if foreign := [word for word in options.overrides if word.lstrip("+~").startswith("hydra")]:
        raise ConfigError(f"{foreign[0]}: eval does its jobs itself, one after the other; remove it")
    jobs = []
    for overrides in sweep_jobs(*options.overrides, config="eval", dirs=options.dirs):
        cfg, choices = compose_with_choices(*overrides, config="eval", dirs=options.dirs)
        check_eval(cfg, trusted=cfg.trusted)
        jobs.append((plain(cfg), choices["task"]))

    tune_malloc()
    failed = []
    with start_processes() as world:
        for cfg, name in jobs:
            try:
                _evaluate(cfg, name, world, options.dirs)
            except Exception as error:
                if len(jobs) == 1 or world.size > 1:  # ranks that failed are no longer in step
                    raise
                failed.append(f"task={name} run={cfg['run']}")
                print(f"{failed[-1]}: {error}", file=sys.stderr)
    if failed:
        print(f"mmrnn: {len(failed)} of {len(jobs)} failed: {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _evaluate(cfg: Mapping[str, Any], name: str, world: "World", dirs: Sequence[Path]) -> None:
    from mmrnn.evaluation.tasks.open_task import departures, open_task, reply_settings
    from mmrnn.evaluation.tasks.results import TaskRun
    from mmrnn.evaluation.tasks.run_task import run_task
    from mmrnn.training.precision import autocast
    from mmrnn.training.trackers.console import Console

    run = cfg["run"] or str(newest(RUNS))
    task, device = open_task(cfg["task"], cfg["trusted"]), world.device(cfg["device"])
    try:
        assistant, prompt = _load(run, cfg, device)
        work = TaskRun(
            name=name,
            root=Path(cfg["root"]).expanduser(),
            folder=_folder(run, cfg["out"]) / name,
            model=Path(run).name,
            card=reply_settings(cfg["task"], prompt) | {"precision": cfg["precision"]},
            beams=_beams(cfg),
            departures=departures(name, cfg["task"], cfg.get("prompt"), dirs),
            **{knob: cfg[knob] for knob in ("batch_size", "rank", "max_questions", "feature_cache_gib")},
        )
        console = Console(quiet=not world.main)
        with autocast(cfg["precision"], device):
            result = run_task(assistant, task, work, ranks=world, track=console.tracker(name))
    except (FileNotFoundError, ValueError) as fault:
        raise ConfigError(str(fault)) from fault
    if world.main:
        _print(result, work.folder)


def _beams(cfg: Mapping[str, Any]) -> "BeamSearch | None":
    """Beam search of the replies; None: the most likely token each time."""
    from mmrnn.inference.beam_search import BeamSearch

    beams = BeamSearch(*(cfg[knob] for knob in ("num_beams", "length_penalty", "min_new_tokens")))
    return None if beams.num_beams == 1 and not beams.min_new_tokens else beams


def _load(run: str, cfg: Mapping[str, Any], device: Any) -> "tuple[Assistant, Tree]":
    """The assistant on a device, and the card of its prompt."""
    from mmrnn.config.instantiate import instantiate
    from mmrnn.inference.assistant import Assistant
    from mmrnn.inference.load import load

    assistant = load(run, trusted=cfg["trusted"])
    card = cfg.get("prompt") or plain(assistant.model.config["prompt"])
    prompt = instantiate(card, trusted=cfg["trusted"])
    return Assistant(assistant.model.to(device), assistant.tokenizer, prompt), card


def _folder(run: str, out: str | None) -> Path:
    """Folder of all tasks of a run; a model on the hub has one here."""
    if out is not None:
        return Path(out).expanduser()
    return Path(run) / "eval" if Path(run).is_dir() else Path("eval") / run.rpartition("://")[2].replace("/", "--")


def _print(result: Mapping[str, Any], folder: Path) -> None:
    scores, wrong = result["scores"], {reason: len(ids) for reason, ids in result["skipped"].items()}
    name = result["main"]
    shown = f"no {name} of these questions alone" if name else "no references on disk"
    shown = f"{name} {scores[name]:.4g}" if name in scores else shown
    print(f"{result['task']}: {shown} ({result['questions']:,} questions about {result['images']:,} images)")
    for other in (other for other in scores if other != name):
        print(f"  {other} {scores[other]:.4g}")
    for reason, count in wrong.items():
        print(f"  {count:,} count as wrong: {reason}")
    for departure in result["departures"]:
        print(f"  not as published: {departure}")
    print(folder / result.get("submission", "answers.jsonl"))
