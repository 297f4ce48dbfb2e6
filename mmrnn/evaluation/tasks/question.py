"""Question of a benchmark, and the contract of what reads them."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from mmrnn.prompts.boxes import Box, Codec
from mmrnn.types import Prompt, Sample


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its reference.

    Attributes:
        id: once in a task; runs are paired by it.
        sample: dialogue that ends in an empty reply of the assistant.
        text: the question as the official file has it; `prompt` of an answer. It has an image tag only in LLaVA's
            conversations, whose scorer of ScienceQA looks for it.
        image: name of the image in the official file; "": none.
        kind: category in the summary.
        truths: references; none: the task has none on disk, or a box.
        box: reference in pixels of an image of `size` (width, height).
        size: of the image, for a box.
        codec: form in which the model writes the box; "": none is asked for.
        options: replies from which `rank` chooses; none: the task has no options.
        record: fields of the official record that a submission or a converter needs, such as `question_id`.
        place: file and line of its record, for messages.
    """

    id: str
    sample: Sample
    text: str
    image: str = ""
    kind: str = ""
    truths: tuple[str, ...] = ()
    box: Box | None = None
    size: tuple[int, int] = (0, 0)
    codec: Codec | Literal[""] = ""
    options: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""


@runtime_checkable
class QuestionReader(Protocol):
    """Reads the questions of a task from official files."""

    @abstractmethod
    def questions(self, root: Path, *, suffix: str, prompt: Prompt) -> Iterator[Question]:
        """Yield the questions in the order of the file; no image is opened.

        Args:
            root: folder of all benchmarks.
            suffix: line added to every question; "": none.
            prompt: of the model, which says in which form it writes boxes.

        Raises:
            FileNotFoundError: a file is missing; the sentence names it.
            RecordError: a record is damaged or has no reference; the sentence names file and line.
            ValueError: the prompt does not fit the task.
        """
