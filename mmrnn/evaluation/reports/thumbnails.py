"""Small images for a page: found again through the data of a run, and written into the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import is_card, leaves
from mmrnn.data.image import ImageFile
from mmrnn.evaluation.reports.pairing import ScoredReply
from mmrnn.io.records.files import is_url
from mmrnn.types import ImageSource, MapDataset

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
        roots: folder of the images of each task.

    Attributes:
        faults: why an image cannot be shown, for each.
    """

    def __init__(self, config: Mapping[str, Any], roots: Mapping[str, str]) -> None:
        self.config, self.roots = config, roots
        self.faults: list[str] = []

    def of(self, split: str, keys: Sequence[str], reply: ScoredReply) -> list[str]:
        """Return images of a question as `data:` URLs; those that cannot be shown are left out.

        Args:
            split: or task.
            keys: of the images.
            reply: to the question.
        """
        found = []
        for key in keys:
            try:
                found.append(data_url(self._image(split, reply, key)))
            except Exception as fault:  # the files of a run can hold anything, and the rest of its report stands
                self.faults.append(f"{key}: {str(fault) or type(fault).__name__}")
        return found

    def _image(self, split: str, reply: ScoredReply, key: str) -> ImageSource:
        if split in self.roots:
            return ImageFile(Path(self.roots[split], key))
        if isinstance(self._splits, Exception):
            raise self._splits
        if split not in self._splits:
            raise ValueError(f"the data of the run have no held-out split {split!r}")
        sample = self._splits[split][reply.index]
        images = {image.key: image for image in sample.images}
        if sample.id != reply.id or key not in images:
            raise ValueError(f"the data of the run have another sample in its place, {sample.id!r}")
        return images[key]

    @cached_property
    def _splits(self) -> Mapping[str, MapDataset] | Exception:
        """Held-out splits of the data, or why there are none; files in the network are not read."""
        try:
            if not is_card(card := self.config.get("data")):
                raise ValueError("the configuration of the run names no data")
            if urls := [value for _, value in leaves(card) if isinstance(value, str) and is_url(value)]:
                raise ValueError(f"the data are in the network ({urls[0]})")
            data: MapDataset = instantiate(card)
            return data.held_out(self.config["evaluate"]["samples"])
        except Exception as fault:  # likewise
            return fault
