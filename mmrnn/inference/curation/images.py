"""Images to be captioned: those of a folder, or of the records of a data set."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmrnn.data.curation.items import Item, read_item
from mmrnn.data.curation.outcome import invalid_records
from mmrnn.data.curation.output import RecordWriter, settings_of
from mmrnn.data.image import ImageFile
from mmrnn.data.left_out import LeftOut
from mmrnn.data.readers.record_dataset import RecordDataset
from mmrnn.inference.search.listing import list_tree
from mmrnn.io.errors import RecordError
from mmrnn.types import Sample


class FolderImages(Sequence[Item]):
    """Images of a folder and of all folders in it, each an item whose id is its path in the folder.

    Args:
        folder: of the images.

    Attributes:
        invalid: folders that cannot be listed, by reason.

    Raises:
        ValueError: the folder cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, found = folder, list_tree(folder)
        self.entries = found.entries
        self.invalid = LeftOut.of(found.faults.items())

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Item:
        path = self.entries[index].path
        try:
            path.encode()
        except UnicodeEncodeError:
            return Item(ascii(path), fault=RecordError("the name of a file is not UTF-8", ascii(path)))
        return Item(path, sample=Sample((), (ImageFile(self.folder / path, path),), id=path))

    def writer(self, out: Path) -> RecordWriter:
        """Return the writer of records about the images."""
        return RecordWriter(out, str(self.folder))

    def settings(self) -> dict[str, Any]:
        """Return the facts that a repeated call is compared by."""
        digest = sha256(repr(self.entries).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return {"folder": str(self.folder), "files of the folder": digest}


class RecordImages(Sequence[Item]):
    """Images of the records of a data set, an item for each record.

    Args:
        dataset: the records.
        card: of the data set.
        strict: raise where the reader does not accept a record.

    Attributes:
        invalid: records that the reader does not accept, by reason.

    Raises:
        UnreadableError: `strict`, and there is such a record.
    """

    def __init__(self, dataset: RecordDataset, card: dict[str, Any], *, strict: bool = False) -> None:
        self.dataset, self.card = dataset, card
        self.invalid = invalid_records(dataset, strict=strict)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        return read_item(self.dataset, index)

    def writer(self, out: Path) -> RecordWriter:
        """Return the writer of records about the images."""
        return RecordWriter.of(self.dataset, out)

    def settings(self) -> dict[str, Any]:
        """Return the facts that a repeated call is compared by."""
        return settings_of(self.dataset, self.card)
