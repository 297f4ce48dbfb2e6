"""Reader of documents of text and images in any order: MMC4 and OBELICS."""

from typing import Any, ClassVar, Literal, NamedTuple

from mmrnn.data.image import MAX_PIXELS
from mmrnn.data.readers.dialogue import check_characters, file_name
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.data.rgb import Decoding
from mmrnn.io.errors import RecordError
from mmrnn.io.records.json_files import JsonLines, JsonList, kind_of
from mmrnn.io.records.parquet_table import ParquetTable
from mmrnn.io.records.tar_shard import TarShard
from mmrnn.types import FiniteFloat, Fraction, ImageSource, NonNegativeInt, PositiveInt
from mmrnn.types.records import Record
from mmrnn.types.sample import TAG, Sample, Turn

LITERAL_TAG = "<IMAGE>"
"""Text that replaces the tag of an image where a document has it as a word (VILA)."""


class InterleavedDocuments(RecordDataset):
    """Web documents of sentences and images.

    MMC4: `text_list` of sentences and `image_info` of `image_name` (in `image_folder`, or the name of a member of the
    tar shard) or `image_base64`, with `matched_text_index`, the sentence that the image precedes. OBELICS: `texts` and
    `images` of one length, one of the two null at each place.

    A sample has a turn of the user for each run of images and a turn of the assistant for the text behind it; text
    before the first image belongs to the first turn of the user. The prompt `interleaved` writes them one after the
    other and supervises all text (VILA); `flamingo` supervises the text behind images, each ended by
    `<|endofchunk|>`. Images behind the last text are left out, since nothing follows them.

    Args:
        file: `.jsonl`, `.json` (a list), `.parquet` or `.tar` (WebDataset); a pattern (`{000..099}`, `*`) names
            several.
        max_images: the first so many images of a document are kept; VILA: 6.
        min_similarity: images of MMC4 with a smaller `matched_sim` are left out; OpenFlamingo: 0.24.
        min_images: documents with fewer images are left out.
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

    formats: ClassVar = {".jsonl": JsonLines, ".json": JsonList, ".parquet": ParquetTable, ".tar": TarShard}
    wanted: ClassVar = "file of the documents (.jsonl, .json, .parquet or .tar)"

    def __init__(
        self,
        *,
        file: str | None = None,
        max_images: PositiveInt = 6,
        min_similarity: FiniteFloat = 0.0,
        min_images: NonNegativeInt = 0,
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
        self.max_images, self.min_similarity, self.min_images = max_images, min_similarity, min_images

    def index_key(self) -> dict[str, Any]:
        """Return the knobs on which the validity of a record depends."""
        return {**super().index_key(), "limits": [self.max_images, self.min_similarity, self.min_images]}

    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a record. See `RecordDataset`."""
        content = record.content
        if not isinstance(content, dict):
            raise RecordError("a record must be an object", kind_of(content))
        if "text_list" in content:
            pieces = _mmc4(content, self.max_images, self.min_similarity)
        elif "texts" in content:
            pieces = _obelics(content, self.max_images)
        else:
            raise RecordError("a document must have text_list and image_info (MMC4), or texts and images (OBELICS)")
        while pieces and pieces[-1].text is None:
            pieces.pop()
        if not pieces:
            raise RecordError("a document has no text")
        found = tuple(self._image(piece, record, id, images) for piece in pieces if piece.text is None)
        if len(found) < self.min_images:
            raise RecordError("a document has too few images", f"{len(found)} of {self.min_images}")
        return Parsed(Sample(_turns(pieces), found, "document", id), [])

    def _image(self, piece: "_Piece", record: Record, id: str, images: ImageFolder) -> ImageSource:
        if piece.base64 is not None:
            return images.from_base64(piece.base64)
        name = piece.image.rpartition("/")[2]
        member = next((member for member in record.blobs if member == name or member.endswith(f".{name}")), None)
        return images.image(member or piece.image, record.blobs, id)


class _Piece(NamedTuple):
    """A sentence, or an image by its name or content."""

    text: str | None = None
    image: str = ""
    base64: str | None = None


def _mmc4(content: dict[str, Any], max_images: int, min_similarity: float) -> list[_Piece]:
    sentences, infos = content["text_list"], content.get("image_info") or []
    if not isinstance(sentences, list) or not isinstance(infos, list):
        raise RecordError("text_list and image_info must be lists")
    before: dict[int, list[_Piece]] = {}
    for info in [info for info in infos if _similarity(info) >= min_similarity][:max_images]:
        place = info.get("matched_text_index")
        if type(place) is not int or not 0 <= place < len(sentences):
            raise RecordError("matched_text_index must be the number of a sentence", f"{place!r}"[:50])
        inside = info.get("image_base64")
        if inside is not None and not isinstance(inside, str):
            raise RecordError("an image in the record is no base64", kind_of(inside))
        image = file_name(info.get("image_name"), "image") if inside is None else ""
        before.setdefault(place, []).append(_Piece(image=image, base64=inside))
    pieces = []
    for number, sentence in enumerate(sentences):
        pieces += [*before.get(number, []), *_text(sentence)]
    return pieces


def _obelics(content: dict[str, Any], max_images: int) -> list[_Piece]:
    texts, names = content["texts"], content.get("images")
    if not isinstance(texts, list) or not isinstance(names, list) or len(texts) != len(names):
        raise RecordError("texts and images must be lists of one length")
    pieces, count = [], 0
    for text, name in zip(texts, names, strict=True):
        if name is not None and text is not None:
            raise RecordError("texts and images both have a value at one place")
        if name is not None and count < max_images:
            count += 1
            pieces.append(_Piece(image=file_name(name, "image")))
        elif text is not None:
            pieces += _text(text)
    return pieces


def _turns(pieces: list[_Piece]) -> tuple[Turn, ...]:
    """Turns of user and assistant alternately: runs of images, the first with the text before it; and of text."""
    shown = any(piece.text is None for piece in pieces)
    first = next((n for n, piece in enumerate(pieces) if piece.text is None), 0)
    opening = " ".join(piece.text for piece in pieces[:first])
    turns = [Turn("user", f"{opening} " if opening else "")]
    for piece in pieces[first:] if shown else pieces:
        if piece.text is not None and turns[-1].role == "assistant":
            turns[-1] = Turn("assistant", f"{turns[-1].text} {piece.text}")
        elif piece.text is not None:
            turns.append(Turn("assistant", piece.text))
        elif turns[-1].role == "user":
            turns[-1] = Turn("user", turns[-1].text + TAG)
        else:
            turns.append(Turn("user", TAG))
    return tuple(turns)


def _similarity(info: Any) -> float:
    if not isinstance(info, dict):
        raise RecordError("image_info must be a list of objects", kind_of(info))
    found = info.get("matched_sim", 1.0)
    if type(found) not in (int, float):
        raise RecordError("matched_sim must be a number", kind_of(found))
    return found


def _text(text: Any) -> list[_Piece]:
    if not isinstance(text, str):
        raise RecordError("a sentence must be text", kind_of(text))
    check_characters(text, "sentence")
    stripped = text.strip().replace(TAG, LITERAL_TAG)
    return [_Piece(text=stripped)] if stripped else []
