"""Task: a benchmark as its card describes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from mmrnn.evaluation.metrics.items import Metric
from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.io.errors import RecordError
from mmrnn.types import PositiveInt, Prompt


@runtime_checkable
class Submission(Protocol):
    """Writes the file that the server of a benchmark takes."""

    def __call__(self, root: Path, folder: Path, questions: Sequence[Question], replies: Mapping[str, str]) -> Path:
        """Write the file into a folder, and return its path.

        Args:
            root: folder of all benchmarks.
            folder: of the results of the task.
            questions: of the task.
            replies: by the id of the question; "": none.
        """
        ...


class Task:
    """A benchmark: its questions, what is added to them, and the metric.

    Args:
        reader: of the official files.
        metric: scores the replies; None: there are no references on disk.
        main: value of the metric's summary that papers print.
        suffix: line added to every question; "": none, or the official file has it already.
        max_new_tokens: of a reply.
        submission: writes the file for the benchmark's server; None: there is none.
        source: where prompt and rule come from.

    Raises:
        ValueError: there is a metric and no `main`, or neither a metric nor a submission.
    """

    def __init__(
        self,
        *,
        reader: QuestionReader,
        metric: Metric | None = None,
        main: str = "",
        suffix: str = "",
        max_new_tokens: PositiveInt = 16,
        submission: Submission | None = None,
        source: str = "",
    ) -> None:
        if (metric is None) != (not main):
            raise ValueError(f"main={main!r} must name a value of the metric, and be empty without one")
        if metric is None and submission is None:
            raise ValueError("a task has a metric or a submission, or its replies are of no use")
        self.reader, self.metric, self.main = reader, metric, main
        self.suffix, self.max_new_tokens = suffix, max_new_tokens
        self.submission, self.source = submission, source

    def questions(self, root: Path, prompt: Prompt) -> list[Question]:
        """Read all questions.

        Args:
            root: folder of all benchmarks.
            prompt: of the model.

        Raises:
            FileNotFoundError: a file is missing.
            RecordError: a record is damaged, an id comes twice, or there are no questions.
            ValueError: the prompt does not fit the task.
        """
        return read_questions(self.reader, root, suffix=self.suffix, prompt=prompt)


def read_questions(reader: QuestionReader, root: Path, *, suffix: str = "", prompt: Prompt) -> list[Question]:
    """Read all questions of a reader; arguments and errors as of `QuestionReader.questions`.

    Raises:
        RecordError: an id comes twice, or there are no questions.
    """
    found: dict[str, Question] = {}
    for question in reader.questions(root, suffix=suffix, prompt=prompt):
        if question.id in found:
            raise RecordError("an id comes twice", f"{question.place}: {question.id!r}")
        found[question.id] = question
    if not found:
        raise RecordError("there are no questions", str(root))
    return [*found.values()]
