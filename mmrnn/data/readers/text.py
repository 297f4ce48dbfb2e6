"""Reader of text alone."""

from typing import Any, ClassVar, Literal

from mmrnn.data.readers.dialogue import check_characters
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.io.errors import RecordError
from mmrnn.io.records.json_files import JsonLines, JsonList, PlainLines, kind_of
from mmrnn.io.records.parquet_table import ParquetTable
from mmrnn.types import Fraction
from mmrnn.types.records import Record
from mmrnn.types.sample import Sample, Turn


class PlainText(RecordDataset):
    """Texts without images: the user says nothing, the assistant's turn is the text.

    Read are `.jsonl`, `.json` (a list) and `.parquet` with a key or column of the text, and `.txt` with a text a line.
    With the prompt `interleaved` every token of a text is supervised.

    Args:
        file: of the texts; a pattern (`{000..099}`, `*`) names several.
        text_column: name of the key or column.
        holdout: share of the texts that is not trained on, selected by a hash of their ids.
        split: `train`, or `holdout` for that share.
        index_folder: of the indices of large files; None: that of each file; needed to keep those of URLs.
    """

    formats: ClassVar = {".jsonl": JsonLines, ".json": JsonList, ".txt": PlainLines, ".parquet": ParquetTable}
    wanted: ClassVar = "file of the texts (.jsonl, .json, .txt or .parquet)"

    def __init__(
        self,
        *,
        file: str | None = None,
        text_column: str = "text",
        holdout: Fraction = 0.0,
        split: Literal["train", "holdout"] = "train",
        index_folder: str | None = None,
    ) -> None:
        super().__init__(file=file, holdout=holdout, split=split, index_folder=index_folder)
        self.text_column = text_column

    def index_key(self) -> dict[str, Any]:
        """Return the knobs on which the validity of a record depends."""
        return {**super().index_key(), "columns": [self.text_column]}

    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a record. See `RecordDataset`."""
        text = record.content.get(self.text_column) if isinstance(record.content, dict) else record.content
        if not isinstance(text, str):
            raise RecordError("a text must be text", kind_of(text))
        if not text.strip():
            raise RecordError("a text is empty")
        check_characters(text, self.text_column)
        return Parsed(Sample((Turn("user", ""), Turn("assistant", text)), (), "text", id), [])
