"""Reader of Parquet files in the layout of Hugging Face's `datasets`."""

from typing import Any, ClassVar, Literal

from mmrnn.data.image import MAX_PIXELS
from mmrnn.data.readers.captions import caption_sample
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.llava import dialogue_sample
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.data.rgb import Decoding
from mmrnn.io.errors import RecordError
from mmrnn.io.records.parquet_table import ParquetTable
from mmrnn.types import Fraction, PositiveFloat, PositiveInt
from mmrnn.types.records import Record
from mmrnn.types.sample import TAG


class Parquet(RecordDataset):
    """Samples of the rows of Parquet files, images inside.

    An image column holds `{bytes, path}` (the `Image` feature of `datasets`), bytes, or a list of either. A row is a
    dialogue as `LLaVAJson` reads it, `texts` as in the Cauldron (a list of `user` and `assistant`, behind all images),
    or a caption. To read a row, its row group is read: `row_group_size=100` is a good size for images.

    Args:
        file: of the rows; a pattern (`train-*.parquet`) names several.
        image_column: name of the column of the image or images; None: `image` or `images`.
        dialogue_column: of the dialogue; None: `conversations`, `messages` or `texts`.
        caption_column: of the caption, in rows without a dialogue.
        questions: the user asks one of them about an image with a caption, chosen by a hash of the id; empty: none.
        image_folder: root of the paths of images without bytes; None: the folder of `file`.
        max_pixels: larger images are refused.
        decoding: way to RGB.
        absolute_paths: accept absolute paths of images, so that a record can name any file of the machine.
        holdout: share of the records that is not trained on, selected by a hash of their ids, and evaluated by exact
            match of the last replies.
        split: `train`, or `holdout` for that share.
        index_folder: of the indices of large files; None: that of each file, or `cache_folder` for URLs.
        sequential: read shard by shard in a new order each epoch, the records shuffled in a buffer: a row
            group is then read once for many rows. A run resumes by reading the row groups of a buffer again.
        shuffle_buffer: consecutive records that are shuffled among themselves where `sequential`.
        cache_folder: of whole copies of shards at URLs, made when a shard is first read; None: parts are read.
        cache_gib: of all copies; the oldest are removed. Has to hold the shards of a buffer.
    """

    formats: ClassVar = {".parquet": ParquetTable}
    wanted: ClassVar = "Parquet files (train-*.parquet)"

    def __init__(
        self,
        *,
        file: str | None = None,
        image_column: str | None = None,
        dialogue_column: str | None = None,
        caption_column: str = "caption",
        questions: tuple[str, ...] = (),
        image_folder: str | None = None,
        max_pixels: PositiveInt = MAX_PIXELS,
        decoding: Decoding = "composed",
        absolute_paths: bool = False,
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
            image_files=ImageFolder(image_folder, False, max_pixels, decoding, absolute_paths),
            holdout=holdout,
            split=split,
            index_folder=index_folder,
            sequential=sequential,
            shuffle_buffer=shuffle_buffer,
            cache_folder=cache_folder,
            cache_gib=cache_gib,
        )
        self.image_column, self.dialogue_column, self.caption_column = image_column, dialogue_column, caption_column
        self.questions = tuple(questions)

    def index_key(self) -> dict[str, Any]:
        """Return the knobs on which the validity of a record depends."""
        return {**super().index_key(), "columns": [self.image_column, self.dialogue_column, self.caption_column]}

    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a record. See `RecordDataset`."""
        content = record.content
        columns = [self.image_column] if self.image_column else ["images", "image"]
        given = next((content[column] for column in columns if content.get(column) is not None), None)
        names = [name for name in (given if isinstance(given, list) else [given]) if name is not None]
        columns = [self.dialogue_column] if self.dialogue_column else ["conversations", "messages", "texts"]
        turns = next((content[column] for column in columns if content.get(column) is not None), None)
        if turns is not None:
            kept = {key: content[key] for key in ("system", "observations") if content.get(key) is not None}
            dialogue = {**kept, "conversations": _alternating(turns, len(names)), "image": names or None}
            return dialogue_sample(dialogue, id, images, record.blobs)
        if content.get(self.caption_column) is None:
            missing = f"a row has neither a dialogue ({', '.join(columns)}) nor a caption ({self.caption_column})"
            raise RecordError(missing, f"columns: {', '.join(content)}"[:200])
        return caption_sample(content[self.caption_column], names, id, images, record.blobs, self.questions)


def _alternating(turns: Any, images: int) -> Any:
    """Turns of the Cauldron, `{user, assistant}` each, as those of user and assistant; others as they are."""
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) and "user" in turn for turn in turns):
        return turns
    messages = [{"role": role, "content": turn.get(role)} for turn in turns for role in ("user", "assistant")]
    if images and isinstance(messages[0]["content"], str) and TAG not in messages[0]["content"]:
        messages[0]["content"] = TAG * images + "\n" + messages[0]["content"]
    return messages
