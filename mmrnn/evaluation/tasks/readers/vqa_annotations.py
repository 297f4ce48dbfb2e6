"""Reader of the official files of VQA: questions, and annotations with ten answers."""

from collections.abc import Iterator
from pathlib import Path

from mmrnn.evaluation.tasks.question import Question, QuestionReader
from mmrnn.evaluation.tasks.readers.records import (
    at,
    existing,
    get,
    get_id,
    images_in,
    listed,
    make_question,
    read_json,
)
from mmrnn.evaluation.tasks.readers.references import Reference, find, put
from mmrnn.types import Prompt


class VQAAnnotations(QuestionReader):
    """Questions of OK-VQA and VQAv2 as their projects publish them; the kind is the type of the answer.

    Args:
        file: of the questions.
        annotations: file of the answers.
        image_folder: of the images.
        image_name: of an image, with the field `{}` for its number, as `{:012d}`.
    """

    def __init__(self, *, file: str, annotations: str, image_folder: str, image_name: str) -> None:
        self.file, self.annotations = file, annotations
        self.image_folder, self.image_name = image_folder, image_name

    def questions(self, root: Path, *, suffix: str, prompt: Prompt) -> Iterator[Question]:
        """Yield the questions. See `QuestionReader`."""
        path, images = existing(root, self.file), images_in(root, self.image_folder)
        table = self._answers(root)
        for place, question in listed(read_json(path), "questions", path):
            with at(place):
                id = str(get_id(question, "question_id"))
                name = self.image_name.format(get(question, "image_id", int))
                reference = find(table, id, self.annotations)
                yield make_question(
                    place,
                    get(question, "question", str),
                    [images.image(name, {}, id)],
                    suffix,
                    id=id,
                    image=name,
                    kind=reference.kind,
                    truths=reference.truths,
                    record={"question_id": question["question_id"]},
                )

    def _answers(self, root: Path) -> dict[str, Reference]:
        path, table = existing(root, self.annotations), {}
        for place, one in listed(read_json(path), "annotations", path):
            with at(place):
                answers = tuple(get(answer, "answer", str) for answer in get(one, "answers", list))
                reference = Reference(truths=answers, kind=get(one, "answer_type", str))
                put(table, str(get_id(one, "question_id")), reference)
        return table
