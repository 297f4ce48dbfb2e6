"""A task put to a model: answers are written as they come, so that a killed run resumes, and scored at the end."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from mmrnn.data.image import ImageError
from mmrnn.evaluation.tasks.answer_lines import ANSWERS, answer_line, resume
from mmrnn.evaluation.tasks.plan import Window, images_in_memory, make_plan
from mmrnn.evaluation.tasks.question import Question
from mmrnn.evaluation.tasks.results import TaskRun, check_results, write_results
from mmrnn.evaluation.tasks.retrieval_task import RetrievalTask
from mmrnn.evaluation.tasks.run_retrieval import run_retrieval
from mmrnn.evaluation.tasks.task import Task
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.eval_mode import eval_mode
from mmrnn.inference.feature_cache import encode_images
from mmrnn.inference.fingerprint import state_facts
from mmrnn.inference.replies import replies
from mmrnn.io import jsonl
from mmrnn.io.lock import lock_folder
from mmrnn.types import Alone, Ranks

Line = dict[str, Any]


def run_task(
    assistant: Assistant,
    task: Task | RetrievalTask,
    run: TaskRun,
    *,
    ranks: Ranks | None = None,
    stopped: Callable[[], bool] = lambda: False,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Any] | None:
    """Put all questions of a task to a model, and write `answers.jsonl`, `result.json` and the submission.

    A repeated call answers what is left (of a retrieval: all). With several ranks each asks a part; the first writes.

    Args:
        assistant: that replies.
        task: to be done.
        run: where and how.
        ranks: that share the questions; None: this process alone.
        stopped: called after every batch; True on any rank ends the task on all.
        track: wraps the iteration over the batches of this rank, to show progress.

    Returns:
        The result; None: the task was stopped.

    Raises:
        FileNotFoundError: a file of the task is missing.
        FolderInUseError: another process works in the folder.
        ValueError: a record is damaged, `rank` is set with `beams` or a question has no options, the prompt cannot
            format a question, the metric cannot score one, or the folder holds answers of other settings.
        ImportError: what metric or submission need is not installed.
        RuntimeError: likewise, for a program.
        DiskFullError: there is no space for an answer.
    """
    ranks = ranks or Alone()
    if isinstance(task, RetrievalTask):
        return run_retrieval(assistant, task, run, ranks=ranks, stopped=stopped, track=track)
    everything = task.questions(run.root, assistant.prompt)
    questions = everything[: run.max_questions or None]
    _check_ranking(run, questions)
    beams = {"beams": asdict(run.beams)} if run.beams else {}
    settings = {**run.card, "rank": run.rank, **beams, **state_facts(assistant.model, assistant.tokenizer)}
    asking = _Asking(assistant, task, run)
    with ExitStack() as stack:
        ranks.on_main(lambda: stack.enter_context(lock_folder(run.folder)))
        ranks.on_main(lambda: check_results(task, run.root, questions))
        lines = ranks.on_main(lambda: resume(run.folder, settings, questions))
        todo = [question for question in questions if question.id not in lines]
        share = slice(len(todo) * ranks.rank // ranks.size, len(todo) * (ranks.rank + 1) // ranks.size)
        windows = asking.plan(todo[share])
        own = (found for window in windows for found in asking.answers(window))
        # Every rank takes part in as many steps as the one with the most batches.
        for _ in track(range(max(ranks.gather(sum(len(window.batches) for window in windows))))):
            steps = ranks.gather((next(own, []), stopped()))
            found = [line for part, _ in steps for line in part]
            lines |= {line["id"]: line for line in found}
            ranks.on_main(partial(jsonl.append, run.folder / ANSWERS, *found))
            if any(stop for _, stop in steps):
                return None
        counts = {"asked": len(everything), "padding": _padding(windows)}
        return ranks.on_main(lambda: write_results(task, run, questions, lines, settings, **counts))


def _check_ranking(run: TaskRun, questions: Sequence[Question]) -> None:
    if run.rank and (without := [question.id for question in questions if not question.options]):
        raise ValueError(f"rank=true: {len(without):,} questions of {run.name} have no options ({without[0]!r} first)")
    if run.rank and run.beams:
        raise ValueError("rank=true generates no replies; leave out num_beams and min_new_tokens")


class _Asking:
    """Answers of one model to the questions of one task."""

    def __init__(self, assistant: Assistant, task: Task, run: TaskRun) -> None:
        self.assistant, self.run, self.max_new_tokens = assistant, run, task.max_new_tokens
        self.suffix = f"\n{task.suffix}" if task.suffix else ""

    def plan(self, questions: Sequence[Question]) -> list[Window]:
        """Return the windows of the questions."""
        most = images_in_memory(self.assistant.model, self.run.feature_cache_gib)
        collator = self.assistant.reader.collator()
        return make_plan(questions, collator, batch_size=self.run.batch_size, max_images=most)

    def answers(self, window: Window) -> Iterator[list[Line]]:
        """Yield the lines of each batch of a window."""
        assistant = self.assistant
        if window.images:
            device = next(assistant.model.parameters()).device
            encoder = assistant.model.modalities["image"].encoder
            with eval_mode(assistant.model):
                features = encode_images(encoder, window.images, device=device)
            assistant = Assistant(assistant.model, assistant.tokenizer, assistant.prompt, features=features)
        for batch in window.batches:
            found = self._replies(assistant, batch)
            yield [self._line(question, reply) for question, reply in zip(batch, found, strict=True)]

    def _replies(self, assistant: Assistant, batch: Sequence[Question]) -> list[str | ImageError]:
        if self.run.rank:
            return [_likeliest(assistant, question) for question in batch]
        samples = [question.sample for question in batch]
        return replies(assistant, samples, max_new_tokens=self.max_new_tokens, beams=self.run.beams)

    def _line(self, question: Question, reply: str | ImageError) -> Line:
        text, fault = ("", reply.reason) if isinstance(reply, ImageError) else (reply, "")
        return answer_line(question, question.text + self.suffix, text, self.run.model, fault)


def _likeliest(assistant: Assistant, question: Question) -> str | ImageError:
    """The option of the greatest probability, its end included."""
    try:
        scores = assistant.score(question.sample, question.options)
    except ImageError as fault:
        return fault
    sums = [score.sum() for score in scores]
    return question.options[sums.index(max(sums))]


def _padding(windows: Sequence[Window]) -> float | None:
    """Share of padding in what this rank read; None: it read nothing."""
    padded = sum(window.padded for window in windows)
    return 1 - sum(window.positions for window in windows) / padded if padded else None
