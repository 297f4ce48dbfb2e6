"""Records as they are written: those of JSON and tables of text as they are, others in the form of LLaVA."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from mmrnn.data.image import ImageError, ImageFile, InMemoryImage, header_format
from mmrnn.data.readers.image_folder import StoredImage
from mmrnn.data.readers.record_dataset import RecordDataset
from mmrnn.io.disk import explain_full_disk
from mmrnn.io.errors import RecordError
from mmrnn.io.records.json_files import ByteRecords
from mmrnn.types import ImageSource, Sample, Turn
from mmrnn.types.records import Record

SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}

NO_FILE = "an image is made of others, such as a frame of a video, and has no file"


class RecordWriter:
    """Content of the records of an output, readable where the output is read with the same folder of images.

    Images that are stored inside the input (tar shards, Parquet) are written beside the output, into `NAME_images`.

    Args:
        out: file of the output.
        image_folder: that the names of images are relative to; None: the folder of the records.
        as_is: records are complete as JSON, and are written as they are.
    """

    def __init__(self, out: Path, image_folder: str | None = None, *, as_is: bool = True) -> None:
        self.out, self.image_folder, self.as_is = out, image_folder, as_is

    @classmethod
    def of(cls, dataset: RecordDataset, out: Path) -> "RecordWriter":
        """Return the writer of records of a data set.

        Raises:
            ValueError: the names of images are relative to the folders of several files.
        """
        files = [path for path, _ in dataset.files()]
        as_is = all(issubclass(dataset.source_class(path), ByteRecords) for path in files)
        folder = dataset.image_files.folder
        if as_is and folder is None:
            folders = {str(Path(path).parent) for path in files}
            if len(folders) > 1:
                raise ValueError(
                    f"data.image_folder is not set, and the files lie in {len(folders)} folders; set it to the root of "
                    "the images' paths"
                )
            [folder] = folders
        return cls(out, folder, as_is=as_is)

    def content(self, record: Record, sample: Sample) -> Any:
        """Return the content of a record of the output.

        Raises:
            ImageError: an image that is stored with the record cannot be read.
            RecordError: the record has what the form of LLaVA cannot hold.
        """
        return record.content if self.as_is else self.dialogue(sample.id, sample.turns, sample.images, sample)

    def dialogue(
        self, id: str, turns: Sequence[Turn], images: Sequence[ImageSource], sample: Sample | None = None
    ) -> dict[str, Any]:
        """Return a record in the form of LLaVA.

        Args:
            id: of the record.
            turns: of the dialogue.
            images: of the dialogue.
            sample: whose observations and class are kept; None: there are none.

        Raises:
            ImageError: an image cannot be read.
            RecordError: an image or an observation has no form in JSON.
        """
        names = [self.image_name(image) for image in images]
        found: dict[str, Any] = {"id": id} | ({"image": names[0] if len(names) == 1 else names} if names else {})
        found["conversations"] = [{"from": SPEAKERS[turn.role], "value": turn.text} for turn in turns]
        if sample is not None and sample.observations:
            found["observations"] = {name: _matrices(name, given) for name, given in sample.observations.items()}
        if sample is not None and sample.class_id is not None:
            found["class_id"] = sample.class_id
        return found

    @staticmethod
    def has_file(image: ImageSource) -> bool:
        """Return True for an image with a file or the bytes of one; False: it is made of others, as a frame is."""
        return isinstance(image, ImageFile | StoredImage | InMemoryImage)

    def image_name(self, image: ImageSource) -> str:
        """Return the name of an image in a record of the output; one that is stored inside the input is written.

        Raises:
            ImageError: it cannot be read.
            RecordError: it has no file.
        """
        if isinstance(image, StoredImage):
            image = image.source()
        if isinstance(image, ImageFile) and self.as_is:
            return str(image.key)
        content = _content(image)
        format = header_format(content).lower()
        if self.as_is:
            return f"data:image/{format};base64,{b64encode(content).decode()}"
        return self._write(content, format)

    def _write(self, content: bytes, format: str) -> str:
        """Write an image under its digest, and return its name."""
        digest = sha256(content).hexdigest()[:32]
        name = f"{self.out.stem}_images/{digest[:2]}/{digest[2:]}.{'jpg' if format == 'jpeg' else format}"
        path = self.out.parent / name
        # One that a killed process has written in part is shorter.
        if not path.exists() or path.stat().st_size != len(content):
            path.parent.mkdir(parents=True, exist_ok=True)
            with explain_full_disk(path, len(content)):
                path.write_bytes(content)
        return name


def _content(image: ImageSource) -> bytes:
    """Bytes of the file of an image."""
    if isinstance(image, ImageFile):
        try:
            return Path(image.path).read_bytes()
        except OSError as error:
            raise ImageError(f"{image.path} cannot be read: {error.strerror}") from None
    if isinstance(image, InMemoryImage) and isinstance(image.image, bytes):
        return image.image
    raise RecordError(NO_FILE)


def _matrices(name: str, given: Sequence[Any]) -> list[Any]:
    if not all(isinstance(one, Tensor) for one in given):
        raise RecordError(f"inputs of {name} are files beside shards, which are not copied")
    return [one.tolist() for one in given]


def settings_of(dataset: RecordDataset, card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the records of a data set depend on: its card, and the state of its files."""
    digest = sha256(repr(dataset.files()).encode()).hexdigest()[:16]
    return {"data": dict(card), "files of the data": digest}
