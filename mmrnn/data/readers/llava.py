"""Reader of records in JSON: the format of LLaVA, which VisualRWKV and most other projects use, and its relatives."""

import json
import os
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from os.path import join
from pathlib import Path, PureWindowsPath
from typing import Any, Literal
from urllib.parse import unquote

from mmrnn.data.image import MAX_PIXELS, ImageFile, InMemoryImage
from mmrnn.data.observations import parse_observations
from mmrnn.data.readers.dialogue import Dialogue, RecordError, check_characters, kind_of, parse_dialogue
from mmrnn.data.rgb import Decoding
from mmrnn.data.video import DEFAULT_FRAMES, expand_videos, frames
from mmrnn.types import Fraction, MapDataset, PositiveInt
from mmrnn.types.sample import ImageSource, Sample

DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")
"""Beginning of an image that is written into the record."""


class LLaVAJson(MapDataset):
    r"""Samples of a JSON list of records, or of a `.jsonl` file with one record a line.

    A record:

        {"id": "…", "image": "folder/xyz.jpg",
         "conversations": [{"from": "human", "value": "<image>\n…?"}, {"from": "gpt", "value": "…"}, …]}

    `image` may be missing (text only: a tag is then plain text) or a list (one tag for each). A single image
    without a tag is not shown to the model. `"video": "folder/clip.gif"` (or a list) belongs to `<video>`: an animated
    image, a folder of images, or a video file where PyAV is installed. `"observations": {"state": [[0.1, 0.2], [0.3,
    0.4]]}` are inputs of other modalities, a matrix (`objects features`) or a list of them, one for each `<state>`.

    Also read are the roles `user` and `assistant`, a first turn or a key `system`, `images` and `videos` (ShareGPT,
    LLaMA-Factory), and `messages` of `role` and `content`, a text or a list of parts (`text`, `image_url`, `image`,
    `video`; OpenAI, Hugging Face). An image may be a `data:` URL. An assistant's turn before the first question is left
    out, as in LLaVA.

    Invalid records are left out; `skipped` lists them with the reason. The file is read at first use, images are opened
    on demand.

    Args:
        file: of the records.
        image_folder: root of the images' paths; None: the folder of `file`.
        verify: check at first use that every image file exists, and skip the record if not.
        max_pixels: larger images are refused.
        frames: number of frames taken from a video.
        decoding: way to RGB.
        absolute_paths: accept absolute paths of images, so that a record can name any file of the machine.
        holdout: share of the records that is not trained on, selected by a hash of their ids, and evaluated by exact
            match of the last replies (which is informative where these are short).
        split: `train`, or `holdout` for that share.

    Raises:
        ValueError: `holdout` is outside 0 to 1, or `frames` below 1.
    """

    def __init__(
        self,
        *,
        file: str | None = None,
        image_folder: str | None = None,
        verify: bool = False,
        max_pixels: PositiveInt = MAX_PIXELS,
        frames: PositiveInt = DEFAULT_FRAMES,
        decoding: Decoding = "composed",
        absolute_paths: bool = False,
        holdout: Fraction = 0.0,
        split: Literal["train", "holdout"] = "train",
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        if frames < 1:
            raise ValueError(f"frames ({frames}) must be at least 1")
        self.file, self.image_folder, self.verify, self.max_pixels = file, image_folder, verify, max_pixels
        self.decoding, self.absolute_paths = decoding, absolute_paths
        self.frames, self.holdout, self.split = frames, holdout, split

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def images(self) -> Iterator[ImageSource]:
        """Iterate over all distinct images."""
        return iter({image.key: image for sample in self._samples for image in sample.images}.values())

    def held_out(self, samples: int) -> "dict[str, LLaVAJson]":
        """Return the first `samples` records that are not trained on, as the split `records`."""
        if not self.holdout:
            return {}
        rest = LLaVAJson(
            file=self.file,
            image_folder=self.image_folder,
            verify=self.verify,
            max_pixels=self.max_pixels,
            frames=self.frames,
            decoding=self.decoding,
            absolute_paths=self.absolute_paths,
            holdout=self.holdout,
            split="holdout",
        )
        del rest._samples[samples:]
        return {"records": rest} if len(rest) else {}

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Id (or number, `#12`, counted from 0) of each record left out, and the reason with its details."""
        return self._content.skipped

    def left_out(self) -> list[tuple[str, str]]:
        """Id of each record that is left out, wholly or a part of it, and the reason, the same for all such records."""
        return self._content.left_out

    @cached_property
    def _samples(self) -> list[Sample]:
        return [sample for sample in self._content.samples if self._is_held_out(sample) == (self.split == "holdout")]

    def _is_held_out(self, sample: Sample) -> bool:
        digest = sha256(sample.id.encode()).digest()
        return int.from_bytes(digest[:4], "big") < self.holdout * 2**32

    @cached_property
    def _content(self) -> "_Content":
        """Content of the file.

        Raises:
            ValueError: the file or folder does not exist, is not of this format, or has no valid record.
        """
        if self.file is None:
            raise ValueError("data.file is not set; set it to the JSON file of the records")
        file = Path(self.file)
        folder = Path(self.image_folder) if self.image_folder is not None else file.parent
        if not folder.is_dir():
            raise ValueError(f"data.image_folder ({folder}) is no folder; set it to the root of the images' paths")
        found = _Content()
        for number, record in enumerate(_records(file)):
            name = _id(record, number)
            try:
                dialogue = parse_dialogue(record)
                found.samples.append(self._sample(dialogue, record, name, folder))
                found.left_out += [(name, note) for note in dialogue.notes]
            except ValueError as fault:
                found.skipped.append((name, str(fault)))
                found.left_out.append((name, fault.reason if isinstance(fault, RecordError) else str(fault)))
        if not found.samples:
            reason = f"; the first ({found.skipped[0][0]}): {found.skipped[0][1]}" if found.skipped else ""
            raise ValueError(f"{file} holds no valid record{reason}")
        return found

    def _sample(self, dialogue: Dialogue, record: dict[str, Any], id: str, folder: Path) -> Sample:
        """Sample of a record.

        Raises:
            ValueError: observations or files are invalid.
        """
        turns = dialogue.turns
        observations = parse_observations(record.get("observations"), turns)
        images = tuple(self._image(name, folder) for name in dialogue.images)
        if dialogue.videos:
            paths = [self._path(name, folder, "video") for name in dialogue.videos]
            videos = [
                frames(path, self.frames, name=name, max_pixels=self.max_pixels, decoding=self.decoding)
                for path, name in zip(paths, dialogue.videos, strict=True)
            ]
            return Sample(*expand_videos(turns, images, videos), "reply", id, observations)
        return Sample(turns, images, "reply", id, observations)

    def _image(self, name: str, folder: Path) -> ImageSource:
        if match := DATA_URL.match(name):
            try:
                content = b64decode(name[match.end() :], validate=True)
            except ValueError as error:
                raise RecordError("an image in the record is no base64", str(error)) from None
            key = f"data:{sha256(content).hexdigest()[:32]}"
            return InMemoryImage(content, key, self.max_pixels, self.decoding)
        return ImageFile(self._path(name, folder, "image"), name, self.max_pixels, self.decoding)

    def _path(self, name: str, folder: Path, what: str) -> str:
        """Path of a file of a record, in the folder."""
        if name.startswith("file://"):
            name = unquote(name.removeprefix("file://"))
        if re.match(r"[A-Za-z][\w+.-]+://", name):
            raise RecordError(f"{what} is in the network: download it and name the file", f"{name!r:.100}")
        # Parsed as on Windows, where either slash separates; on other systems `a:b.png` is a name.
        path = PureWindowsPath(name)
        absolute = bool(path.root or (path.drive and os.name == "nt"))
        if ".." in path.parts or (absolute and not (self.absolute_paths and os.path.isabs(name))):
            cure = "; to allow absolute paths, set absolute_paths=true" if os.path.isabs(name) else ""
            raise RecordError(f"{what} is outside the folder of the images{cure}", repr(name))
        whole = join(folder, name)
        if self.verify and not (os.path.isfile(whole) or (what == "video" and os.path.isdir(whole))):
            raise RecordError(f"{what} is not in the folder", f"{name!r} in {folder}")
        return whole


@dataclass
class _Content:
    """Samples of a file, the records left out, and all that is left out by reason."""

    samples: list[Sample] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def _records(file: Path) -> Iterator[Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"data.file ({file}) does not exist; set it to the JSON file of the records") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"data.file ({file}) cannot be read: {error.strerror}") from None
    if file.suffix == ".jsonl":
        for line in filter(str.strip, text.split("\n")):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                yield RecordError("a line is no JSON", _reason(error))
        return
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is not JSON ({_reason(error)}); a file with one record a line must end in .jsonl"
        ) from None
    if not isinstance(records, list):
        raise ValueError(f"{file} must hold a list of records, not {kind_of(records)}")
    yield from records


def _id(record: Any, number: int) -> str:
    """Id of a record; its number where it has none that can be written."""
    id = record.get("id") if isinstance(record, dict) else None
    if not isinstance(id, int | float | str):
        return f"#{number}"
    try:
        check_characters(str(id), "id")
    except RecordError:
        return f"#{number}"
    return str(id)


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
