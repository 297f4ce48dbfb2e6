"""Benchmarks of `evaluate.tasks`, which are run after training by all processes."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.evaluation.tasks.open_task import open_task, reply_settings
from mmrnn.evaluation.tasks.results import TaskRun, check_results
from mmrnn.evaluation.tasks.run_task import run_task
from mmrnn.evaluation.tasks.task import Task
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.embedding import require_embedder
from mmrnn.model.vlm import VLM
from mmrnn.training.ends import StoppedRun
from mmrnn.training.evaluator import Evaluator
from mmrnn.types import Prompt

FOLDER = "eval"
"""Folder of all benchmarks in the folder of a run."""


def check_benchmarks(settings: Mapping[str, Any], prompt: Prompt, model: VLM) -> None:
    """Read the questions of all benchmarks and score empty replies: what is missing ends a run before it trains.

    Args:
        settings: `evaluate` of the configuration.
        prompt: of the run.
        model: of the run.

    Raises:
        FileNotFoundError: a file of a benchmark is missing.
        ValueError: a record is damaged, or prompt or model do not fit a benchmark.
        ImportError: what a metric or a submission needs is not installed.
        RuntimeError: likewise, for a program.
    """
    root = Path(settings["root"]).expanduser()
    for name in settings["tasks"]:
        task = open_task(_card(name))
        questions = task.questions(root, prompt)
        if isinstance(task, Task):
            check_results(task, root, questions)
        else:
            require_embedder(model)


def run_benchmarks(
    evaluator: Evaluator, cfg: Mapping[str, Any], out: Path, track: Callable[[str], Callable[[Iterable[int]], Any]]
) -> dict[str, Any]:
    """Run all benchmarks, each into `eval/NAME` in the folder of the run.

    Args:
        evaluator: of the run.
        cfg: the configuration as plain data.
        out: folder of the run.
        track: name of a benchmark -> wrapper of the iteration over its batches, to show progress.

    Returns:
        Result of each.

    Raises:
        StoppedRun: a process received a signal.
    """
    settings, parts, results = cfg["evaluate"], evaluator.parts, {}
    if not settings["tasks"]:
        return results
    with evaluator.model() as model:
        assistant = Assistant(model, parts.tokenizer, parts.prompt)
        for name in settings["tasks"]:
            card = _card(name)
            work = TaskRun(
                name=name,
                root=Path(settings["root"]).expanduser(),
                folder=out / FOLDER / name,
                model=out.name,
                card=reply_settings(card, cfg["prompt"]) | {"precision": evaluator.precision},
                batch_size=settings["batch_size"],
            )
            results[name] = run_task(
                assistant,
                open_task(card),
                work,
                ranks=parts.world,
                stopped=lambda: bool(evaluator.signals.received),
                track=track(name),
            )
            if results[name] is None:
                raise StoppedRun(int(parts.world.max([evaluator.signals.received])[0]))
    return results


def _card(name: str) -> dict[str, Any]:
    return plain(compose(f"task={name}", config="eval").task)
