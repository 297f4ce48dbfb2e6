"""Small images for a page: found again through the data of a run, and written into the page."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import is_card, leaves
from mmrnn.evaluation.conditions import base_split
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.evaluation.reports.task_results import TaskResult
from mmrnn.evaluation.tasks.question import QuestionReader
from mmrnn.io.records.files import is_url
from mmrnn.types import ImageSource, MapDataset

Finder = Callable[[ScoredReply], Sequence[ImageSource]]
"""Returns the images of a question."""

SIDE = 160
"""Most pixels of a side of a thumbnail."""


def data_url(image: ImageSource, *, side: int = SIDE, form: str = "JPEG") -> str:
    """Return an image as a `data:` URL.

    Args:
        image: to be shown.
        side: its longer side is scaled down to so many pixels.
        form: `JPEG` or `PNG`.

    Raises:
        ImageError: the image cannot be read.
    """
    opened = image.open()
    opened.thumbnail((side, side))
    buffer = io.BytesIO()
    opened.save(buffer, form)
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


class Thumbnails:
    """Images of the questions of a run.

    Args:
        config: of the run; a held-out image is found through its data set.
        tasks: of the run by their label; an image is found through the reader of the task.

    Attributes:
        faults: why an image cannot be shown, for each question.
    """

    def __init__(self, config: Mapping[str, Any], tasks: Mapping[str, TaskResult]) -> None:
        self.config, self.tasks = config, tasks
        self.faults: list[str] = []
        self._opened: dict[str, Finder | Exception] = {}

    def of(self, split: str, reply: ScoredReply, most: int) -> list[str]:
        """Return images of a question as `data:` URLs; none: they cannot be shown.

        Args:
            split: or label of the task.
            reply: to the question.
            most: number of images.
        """
        try:
            return [data_url(image) for image in self._images(split, reply)[:most]] if reply.images else []
        except Exception as fault:  # the files of a run can hold anything, and the rest of its report stands
            self.faults.append(f"{reply.images[0]}: {str(fault) or type(fault).__name__}")
            return []

    def _images(self, split: str, reply: ScoredReply) -> Sequence[ImageSource]:
        if split not in self._opened:
            try:
                opened = self._questions(self.tasks[split]) if split in self.tasks else self._held_out(split)
            except Exception as fault:  # likewise
                opened = fault
            self._opened[split] = opened
        opened = self._opened[split]
        if isinstance(opened, Exception):
            raise opened
        return opened(reply)

    def _held_out(self, split: str) -> Finder:
        """Open a held-out split of the data; files in the network are not read.

        Raises:
            ValueError: there is none.
        """
        if not is_card(card := self.config.get("data")):
            raise ValueError("the configuration of the run names no data")
        if urls := [value for _, value in leaves(card) if isinstance(value, str) and is_url(value)]:
            raise ValueError(f"the data are in the network ({urls[0]})")
        data: MapDataset = instantiate(card)
        samples = data.held_out(self.config["evaluate"]["samples"]).get(base_split(split))
        if samples is None:
            raise ValueError(f"the data of the run have no held-out split {split!r}")

        def find(reply: ScoredReply) -> list[ImageSource]:
            sample = samples[reply.index]
            if sample.id != reply.id:
                raise ValueError(f"the data of the run have another sample in its place, {sample.id!r}")
            return [image for image in sample.images if image.key in reply.images]

        return find

    def _questions(self, task: TaskResult) -> Finder:
        """Read the questions of a task again.

        Raises:
            ValueError: the result does not say how they are read.
        """
        if not {"task", "prompt"} <= task.settings.keys():
            raise ValueError("the result of the task does not say how its questions are read")
        card = task.settings["task"]
        reader = instantiate(card["reader"])
        if not isinstance(reader, QuestionReader):
            raise ValueError(f"{card['reader']['_target_']} reads no questions")
        prompt = instantiate(task.settings["prompt"])
        questions = [*reader.questions(Path(task.root), suffix=card.get("suffix", ""), prompt=prompt)]
        by_id = {question.id: question.sample.images for question in questions}
        # The captions that a retrieval task searches with have ids of their own.
        by_image = {question.image: question.sample.images for question in questions}
        return lambda reply: by_id[reply.id] if reply.id in by_id else by_image[reply.images[0]]
