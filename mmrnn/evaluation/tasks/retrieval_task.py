"""Retrieval as a task: images are found by their captions, and captions by their image."""

from pathlib import Path
from typing import Literal

from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.task import read_questions
from mmrnn.io.errors import RecordError
from mmrnn.types import Prompt

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text_to_image", "image_to_text"

Figure = Literal[
    "text_to_image/recall@1",
    "text_to_image/recall@5",
    "text_to_image/recall@10",
    "image_to_text/recall@1",
    "image_to_text/recall@5",
    "image_to_text/recall@10",
]
"""Direction and number of candidates that may hold a right one."""


class RetrievalTask:
    """Images with captions: each caption is to find its image among all, and each image one of its captions.

    The model is one that embeds images and texts.

    Args:
        reader: of images with captions, the references of its questions.
        main: figure that stands for the task; the answers are those of its direction, each with a score of 1 or 0.
        source: where the data and the rule come from.
    """

    def __init__(self, *, reader: QuestionReader, main: Figure = "text_to_image/recall@1", source: str = "") -> None:
        self.reader, self.main, self.source = reader, main, source

    def questions(self, root: Path, prompt: Prompt) -> list[Question]:
        """Read all images with their captions; arguments and errors as of `Task.questions`.

        Raises:
            RecordError: a question has no caption, or not one image.
        """
        found = read_questions(self.reader, root, prompt=prompt)
        for one in found:
            if len(one.sample.images) != 1 or not one.truths or not all(map(str.strip, one.truths)):
                raise RecordError("retrieval takes one image with captions", f"{one.place}: {one.id!r}")
        return found

    def queries(self, questions: list[Question]) -> list[Question]:
        """Return the queries of the direction of `main`: the images, or their captions, with what is right."""
        if self.main.startswith(IMAGE_TO_TEXT):
            return questions
        return [
            Question(
                id=f"{one.id}/{number}",
                sample=one.sample,
                text=caption,
                image=one.image,
                truths=(one.image,),
                record={"question_id": f"{one.id}/{number}"},
                place=one.place,
            )
            for one in questions
            for number, caption in enumerate(one.truths)
        ]
