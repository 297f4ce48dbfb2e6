"""Reader of images with captions."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar, Literal

from mmrnn.data.image import MAX_PIXELS
from mmrnn.data.readers.dialogue import check_characters, file_name
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.data.rgb import Decoding
from mmrnn.io.errors import RecordError
from mmrnn.io.records.files import Stamp
from mmrnn.io.records.json_files import CocoCaptions, JsonLines, kind_of
from mmrnn.io.records.parquet_table import ParquetTable
from mmrnn.io.records.tsv import TsvTable
from mmrnn.types import Fraction, PositiveInt
from mmrnn.types.records import Blob, Record, RecordSource
from mmrnn.types.sample import TAG, Sample, Turn


class Captions(RecordDataset):
    """Captions of images: the user shows the image, the assistant's turn is the caption.

    Read are `.jsonl` and `.parquet` (an object or a row for each caption), `.tsv` (the first line names the columns,
    unless the columns are given as numbers, counted from 0), and `.json` in the form of COCO's captions. For shards in
    the form of WebDataset see `WebDataset`.

    Args:
        file: of the captions; a pattern (`{000..099}`, `*`) names several.
        image_column: name of the key or column of the image, a path in `image_folder` (or, in Parquet, its bytes).
        caption_column: likewise of the caption.
        questions: the user asks one of them beside the image, chosen by a hash of the id; empty: shows the image alone.
        image_folder: root of the paths of images that are not stored with their record; None: the folder of `file`.
        verify: check at first use that every such image exists, and skip the record if not.
        max_pixels: larger images are refused.
        decoding: way to RGB.
        absolute_paths: accept absolute paths of images, so that a record can name any file of the machine.
        holdout: share of the records that is not trained on, selected by a hash of their ids, and evaluated by exact
            match of the last replies.
        split: `train`, or `holdout` for that share.
        index_folder: of the indices of large files; None: that of each file; needed to keep those of URLs.
    """

    formats: ClassVar = {".jsonl": JsonLines, ".json": CocoCaptions, ".tsv": TsvTable, ".parquet": ParquetTable}
    wanted: ClassVar = "file of the captions (.jsonl, .tsv, .parquet, or .json of COCO)"

    def __init__(
        self,
        *,
        file: str | None = None,
        image_column: str = "image",
        caption_column: str = "caption",
        questions: tuple[str, ...] = (),
        image_folder: str | None = None,
        verify: bool = False,
        max_pixels: PositiveInt = MAX_PIXELS,
        decoding: Decoding = "composed",
        absolute_paths: bool = False,
        holdout: Fraction = 0.0,
        split: Literal["train", "holdout"] = "train",
        index_folder: str | None = None,
    ) -> None:
        super().__init__(
            file=file,
            image_files=ImageFolder(image_folder, verify, max_pixels, decoding, absolute_paths),
            holdout=holdout,
            split=split,
            index_folder=index_folder,
        )
        self.image_column, self.caption_column, self.questions = image_column, caption_column, tuple(questions)

    def source(self, path: str, stamp: Stamp) -> RecordSource:
        """Return the records of a file. See `RecordDataset`."""
        if path.lower().endswith(".tsv"):
            return TsvTable(path, stamp, numbered=self.image_column.isdecimal() and self.caption_column.isdecimal())
        return super().source(path, stamp)

    def index_key(self) -> dict[str, Any]:
        """Return the knobs on which the validity of a record depends."""
        return {**super().index_key(), "columns": [self.image_column, self.caption_column]}

    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a record. See `RecordDataset`."""
        content = record.content
        if not isinstance(content, dict):
            raise RecordError("a record must be an object", kind_of(content))
        if self.image_column not in content:
            raise RecordError(f"a record has no {self.image_column}; set data.image_column to its name")
        name = content.get(self.image_column)
        names = name if isinstance(name, list) else [name]
        return caption_sample(content.get(self.caption_column), names, id, images, record.blobs, self.questions)


def caption_sample(
    caption: Any,
    names: Sequence[Any],
    id: str,
    images: ImageFolder,
    stored: Mapping[str, Blob],
    questions: Sequence[str] = (),
) -> Parsed:
    """Return the sample of a caption.

    Args:
        caption: its text.
        names: of its images.
        id: of the sample.
        images: makes images of the names.
        stored: images that are stored with the record, by name.
        questions: the user asks one of them, chosen by a hash of the id.

    Raises:
        RecordError: caption or names are invalid.
    """
    if not isinstance(caption, str):
        raise RecordError("a caption must be text", kind_of(caption))
    if not caption.strip():
        raise RecordError("a caption is empty")
    check_characters(caption, "caption")
    if not names:
        raise RecordError("a caption has no image")
    names = [file_name(name, "image") for name in names]
    asked = TAG * len(names)
    if questions:
        asked += "\n" + questions[int.from_bytes(sha256(id.encode()).digest()[4:8], "big") % len(questions)]
    found = tuple(images.image(name, stored, id) for name in names)
    return Parsed(Sample((Turn("user", asked), Turn("assistant", caption.strip())), found, "caption", id), [])
