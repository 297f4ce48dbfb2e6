"""Records one by one, in a pass that no broken record may end."""

from dataclasses import dataclass, replace

from mmrnn.data.image import ImageError
from mmrnn.data.readers.image_folder import StoredImage
from mmrnn.data.readers.record_dataset import RecordDataset
from mmrnn.io.errors import RecordError
from mmrnn.types import ImageSource, Sample
from mmrnn.types.records import Record


class UnreadableError(ValueError):
    """A record or an image that cannot be read, in a pass that is to stop at the first of them."""


@dataclass(frozen=True)
class Item:
    """A record with its sample, or the fault for which it cannot be read.

    Attributes:
        id: of the record.
        record: as it is stored.
        sample: made of it; None: it cannot be read.
        fault: why.
    """

    id: str
    record: Record | None = None
    sample: Sample | None = None
    fault: RecordError | ImageError | None = None

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """Images of the sample."""
        return self.sample.images if self.sample else ()

    def with_images_read(self) -> "Item":
        """Return the item with images that any thread may open: bytes that are stored in a file are read now."""
        try:
            images = tuple(image.source() if isinstance(image, StoredImage) else image for image in self.images)
        except ImageError as fault:
            return Item(self.id, fault=fault)
        return replace(self, sample=replace(self.sample, images=images)) if self.sample else self


def read_item(dataset: RecordDataset, index: int) -> Item:
    """Return a record of a data set; what its reader refuses now, such as a file that is gone, is its fault."""
    try:
        record, sample = dataset.read_record(index)
    except RecordError as fault:
        return Item(f"#{index}", fault=fault)
    return Item(sample.id, record, sample)
