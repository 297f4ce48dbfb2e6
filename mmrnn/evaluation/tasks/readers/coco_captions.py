"""Reader of images with several reference captions: COCO, Flickr30K and nocaps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from mmrnn.io.errors import RecordError
from mmrnn.types import Prompt


class CocoCaptions(QuestionReader):
    """Images of a file in COCO's form, or in that of Karpathy's splits; the kind is the domain of nocaps.

    Args:
        file: of the captions.
        split: of Karpathy's `dataset_coco.json` or `dataset_flickr30k.json`; "": the file has COCO's form, and all its
            images are captioned.
        image_folder: of the images.
        question: asks for a caption.
    """

    def __init__(
        self,
        *,
        file: str,
        split: str = "",
        image_folder: str,
        question: str = "Provide a one-sentence caption for the provided image.",
    ) -> None:
        self.file, self.split, self.image_folder, self.question = file, split, image_folder, question

    def questions(self, root: Path, *, suffix: str, prompt: Prompt) -> Iterator[Question]:
        """Yield a question for each image. See `QuestionReader`."""
        path, images = existing(root, self.file), images_in(root, self.image_folder)
        content = read_json(path)
        captions = {} if self.split else _captions(content, path)
        for place, image in listed(content, "images", path):
            with at(place):
                if self.split and get(image, "split", str) != self.split:
                    continue
                given = get_id(image, *(("cocoid", "imgid") if self.split else ("id",)))
                name = get(image, "filename" if self.split else "file_name", str)
                if self.split:
                    truths = [get(sentence, "raw", str) for sentence in get(image, "sentences", list)]
                else:
                    truths = captions.pop(str(given), [])
                if not truths:
                    raise RecordError("an image has no caption, or comes twice", repr(given))
                yield make_question(
                    place,
                    self.question,
                    [images.image(name, {}, str(given))],
                    suffix,
                    id=str(given),
                    image=name,
                    kind=get(image, "domain", str) if "domain" in image else "",
                    truths=tuple(truths),
                    record={"question_id": given},
                )


def _captions(content: Any, path: Path) -> dict[str, list[str]]:
    """Return the captions of each image by its id."""
    found: dict[str, list[str]] = {}
    for place, one in listed(content, "annotations", path):
        with at(place):
            found.setdefault(str(get_id(one, "image_id")), []).append(get(one, "caption", str))
    return found
