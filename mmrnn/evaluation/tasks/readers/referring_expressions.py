"""Reader of phrases that each refer to one thing in an image: RefCOCO, RefCOCO+ and RefCOCOg."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrnn.data.image import MAX_SIDE
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
    records,
)
from mmrnn.io.errors import RecordError
from mmrnn.prompts.boxes import CODECS, Box
from mmrnn.types import Prompt


class ReferringExpressions(QuestionReader):
    """Phrases with the box that they refer to, asked in the words of the design whose prompt it is.

    A `.json` file has COCO's form with a `caption` for each image (MDETR's `finetune_refcoco_val.json`), a `.jsonl`
    file a line of `image`, `sent`, `bbox`, `width` and `height` for each phrase (Qwen-VL's `refcoco_val.jsonl`). The
    name of the file ends in that of its split, which is the kind. Of the path of an image its last part counts.

    Args:
        files: of the splits.
        image_folder: of the images.
    """

    def __init__(self, *, files: tuple[str, ...], image_folder: str) -> None:
        self.files, self.image_folder = tuple(files), image_folder

    def questions(self, root: Path, *, suffix: str, prompt: Prompt) -> Iterator[Question]:
        """Yield the questions. See `QuestionReader`."""
        if prompt.boxes not in CODECS:
            cards = ", ".join(codec.prompt for codec in CODECS.values())
            raise ValueError(
                f"the prompt writes no boxes (boxes={prompt.boxes!r}): choose prompt={cards}, "
                f"or the prompt and the form that the model was trained with (prompt=NAME prompt.boxes=FORM; "
                f"the forms are {', '.join(CODECS)})"
            )
        images = images_in(root, self.image_folder)
        for file in self.files:
            path = existing(root, file)
            split = path.stem.rpartition("_")[2]
            for place, given, record in _lines(path) if path.suffix == ".jsonl" else _coco(path):
                with at(place):
                    name = get(record, "image", str).rpartition("/")[2]
                    id = f"{split}/{given}"
                    yield make_question(
                        place,
                        CODECS[prompt.boxes].question.format(get(record, "sent", str)),
                        [images.image(name, {}, id)],
                        suffix,
                        id=id,
                        image=name,
                        kind=split,
                        box=_box(record["bbox"]),
                        size=(_side(record, "width"), _side(record, "height")),
                        codec=prompt.boxes,
                        record={"question_id": given},
                    )


def _lines(path: Path) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Yield place, number and record of every line."""
    for number, (place, record) in enumerate(records(path)):
        with at(place):
            get(record, "bbox", list)
        yield place, number, record


def _coco(path: Path) -> Iterator[tuple[str, str | int, Mapping[str, Any]]]:
    """Yield place, id and record of every image, its box as (left, top, right, bottom)."""
    content, boxes = read_json(path), {}
    for place, one in listed(content, "annotations", path):
        with at(place):
            left, top, width, height = _numbers(get(one, "bbox", list))
            id = get_id(one, "image_id")
            if id in boxes:
                raise RecordError("a phrase has two boxes", repr(id))
            boxes[id] = [left, top, left + width, top + height]
    for place, image in listed(content, "images", path):
        with at(place):
            id = get_id(image, "id")
            if id not in boxes:
                raise RecordError("a phrase has no box, or comes twice", repr(id))
            names = {"image": get(image, "file_name", str), "sent": get(image, "caption", str)}
        yield place, id, {**image, **names, "bbox": boxes.pop(id)}


def _numbers(values: list[Any]) -> list[int | float]:
    if len(values) != 4 or not all(type(value) in (int, float) and abs(value) < MAX_SIDE for value in values):
        raise RecordError("bbox must be four numbers", f"{values!r:.80}")
    return values


def _box(values: list[Any]) -> Box:
    left, top, right, bottom = _numbers(values)
    if not (left < right and top < bottom):
        raise RecordError("a box has no area", f"{values!r:.80}")
    return left, top, right, bottom


def _side(record: Mapping[str, Any], key: str) -> int:
    if get(record, key, int) < 1:
        raise RecordError(f"{key} must be 1 or more", f"{record[key]}")
    return record[key]
