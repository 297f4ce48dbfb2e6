"""Reader of tar shards in the form of WebDataset."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from mmrnn.data.image import MAX_PIXELS
from mmrnn.data.readers.captions import caption_sample
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.llava import dialogue_sample
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.data.rgb import Decoding
from mmrnn.io.errors import RecordError
from mmrnn.io.records.tar_shard import TarShard
from mmrnn.types import Fraction, PositiveFloat, PositiveInt
from mmrnn.types.records import Record


class WebDataset(RecordDataset):
    """Samples of tar shards by their offset: every record once an epoch, in any order, over any number of processes.

    The members of a key are a sample: its images (`.jpg`, `.png`, `.webp`, ...) and a `.json` with a record as
    `LLaVAJson` reads it, or a `.txt` (or a key `caption` of the `.json`) with a caption. Names of images in the record
    are those of the members; without such names the images come in the order of the shard.

    Args:
        file: of the shards, local or a URL (fsspec), with a pattern: `shard-{000000..000099}.tar`, `*.tar`.
        questions: the user asks one of them about an image with a caption, chosen by a hash of the id; empty: none.
        max_pixels: larger images are refused.
        decoding: way to RGB.
        holdout: share of the records that is not trained on, selected by a hash of their ids, and evaluated by exact
            match of the last replies.
        split: `train`, or `holdout` for that share.
        index_folder: of the indices of large files; None: that of each file, or `cache_folder` for URLs.
        sequential: read shard by shard in a new order each epoch, the records shuffled in a buffer: for shards in
            the network, which are then copied once an epoch. A run resumes by copying the shards of a buffer again.
        shuffle_buffer: consecutive records that are shuffled among themselves where `sequential`.
        cache_folder: of whole copies of shards at URLs, made when a shard is first read; None: parts are read.
        cache_gib: of all copies; the oldest are removed. Has to hold the shards of a buffer.
    """

    formats: ClassVar = {".tar": TarShard}
    wanted: ClassVar = "tar shards (shard-{000000..000099}.tar)"

    def __init__(
        self,
        *,
        file: str | None = None,
        questions: tuple[str, ...] = (),
        max_pixels: PositiveInt = MAX_PIXELS,
        decoding: Decoding = "composed",
        holdout: Fraction = 0.0,
        split: Literal["train", "holdout"] = "train",
        index_folder: str | None = None,
        sequential: bool = False,
        shuffle_buffer: PositiveInt = 10_000,
        cache_folder: str | None = None,
        cache_gib: PositiveFloat = 100.0,
    ) -> None:
        super().__init__(
            file=file,
            image_files=ImageFolder(max_pixels=max_pixels, decoding=decoding),
            holdout=holdout,
            split=split,
            index_folder=index_folder,
            sequential=sequential,
            shuffle_buffer=shuffle_buffer,
            cache_folder=cache_folder,
            cache_gib=cache_gib,
        )
        self.questions = tuple(questions)

    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a record. See `RecordDataset`."""
        content = dict(record.content)
        if "conversations" in content or "messages" in content:
            given = [name for key in ("image", "images") for name in _listed(content.pop(key, None))]
            names = match_names(given, list(record.blobs))
            return dialogue_sample({**content, "image": names} if names else content, id, images, record.blobs)
        caption = content.get("txt", content.get("caption"))
        if caption is None:
            raise RecordError("a record has neither a dialogue (.json) nor a caption (.txt)")
        return caption_sample(caption, list(record.blobs), id, images, record.blobs, self.questions)


def match_names(given: list[Any], stored: list[str]) -> list[Any]:
    """Return the names of the images of a record as those of the members of its shard.

    Args:
        given: names in the record, perhaps with folders.
        stored: names of the members, in their order.

    Raises:
        RecordError: the shard does not hold an image that the record names.
    """
    if not given:
        return stored
    last = [name.replace("\\", "/").rpartition("/")[2] if isinstance(name, str) else name for name in given]
    if set(map(str, last)) <= set(stored):
        return last
    if len(given) == len(stored):
        return stored
    raise RecordError("a shard holds other images than a record names", f"{len(stored)} for {len(given)} names")


def _listed(names: Any) -> Iterator[Any]:
    yield from names if isinstance(names, list) else [] if names is None else [names]
