"""Data in the form of LLaVA, which VisualRWKV and most others have taken over."""

import json
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from os.path import join
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from mmrnn.data.image import PIXELS, ImageFile
from mmrnn.data.observations import observations
from mmrnn.data.video import FRAMES, expand_videos, frames
from mmrnn.types import MapDataset
from mmrnn.types.sample import TAG, ImageSource, Sample, Turn

ROLES = {"human": "user", "gpt": "assistant"}


class LLaVAJson(MapDataset):
    """A JSON list (or `.jsonl`) of records

        {"id": "…", "image": "folder/xyz.jpg",
         "conversations": [{"from": "human", "value": "<image>\\n…?"}, {"from": "gpt", "value": "…"}, …]}

    `image` may be missing (text only: a tag is then plain text) or a list (one tag for each). One image without any
    tag is not shown. `"video": "folder/clip.gif"` (or a list) stands where the text has `<video>`, as so many frames: a
    moving image, a folder of images, or a film where PyAV is installed. What other modalities read stands in
    `"observations": {"state": [[0.1, 0.2], [0.3, 0.4]]}`, a matrix (objects x features) or a list of them, one for each
    `<state>`. Records that are not like this are left out; `skipped` names them with the reason.

    The file is read at first use, images are opened when they are needed.

    Args:
        file: the records.
        image_folder: the folder that the images' names start from; null: the folder of `file`.
        verify: look at first use whether every image's file is there, and skip the record if not.
        pixels: the largest image that is opened.
        frames: images that a video becomes.
        holdout: the share of records that is not trained on, chosen by their ids; the replies to their last questions
            are compared with theirs, which tells something where these are short.
        split: `train`, or `holdout` for that share.
    """

    def __init__(
        self,
        *,
        file: str | None = None,
        image_folder: str | None = None,
        verify: bool = False,
        pixels: int = PIXELS,
        frames: int = FRAMES,
        holdout: float = 0.0,
        split: Literal["train", "holdout"] = "train",
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        if frames < 1:
            raise ValueError(f"frames ({frames}) must be at least 1")
        self.file, self.image_folder, self.verify, self.pixels, self.holdout = (
            file,
            image_folder,
            verify,
            pixels,
            holdout,
        )
        self.frames, self.split = frames, split

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def images(self) -> Iterator[ImageSource]:
        """Every image, each once."""
        return iter({image.key: image for sample in self._samples for image in sample.images}.values())

    def held_out(self, samples: int) -> "dict[str, LLaVAJson]":
        """The first so many of the records that are not trained on."""
        if not self.holdout:
            return {}
        rest = LLaVAJson(
            file=self.file,
            image_folder=self.image_folder,
            verify=self.verify,
            pixels=self.pixels,
            frames=self.frames,
            holdout=self.holdout,
            split="holdout",
        )
        del rest._samples[samples:]
        return {"records": rest} if len(rest) else {}

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """The records left out: id, or number counted from 0 (`#12`), and the reason."""
        return self._read[1]

    @cached_property
    def _samples(self) -> list[Sample]:
        return [sample for sample in self._read[0] if self._holds(sample) == (self.split == "holdout")]

    def _holds(self, sample: Sample) -> bool:
        digest = sha256(sample.id.encode()).digest()
        return int.from_bytes(digest[:4], "big") < self.holdout * 2**32

    @cached_property
    def _read(self) -> tuple[list[Sample], list[tuple[str, str]]]:
        """
        Raises:
            ValueError: the file or folder is not there or not of this form, or no record is.
        """
        if self.file is None:
            raise ValueError("data.file is not set: give the JSON file of the records")
        file = Path(self.file)
        folder = Path(self.image_folder) if self.image_folder is not None else file.parent
        if not folder.is_dir():
            raise ValueError(
                f"data.image_folder ({folder}) is no folder; give the one that the images' names start from"
            )
        samples, skipped = [], []
        for number, record in enumerate(_records(file)):
            try:
                samples.append(self._sample(record, number, folder))
            except ValueError as fault:
                skipped.append((_id(record, number), str(fault)))
        if not samples:
            reason = f"; the first ({skipped[0][0]}): {skipped[0][1]}" if skipped else ""
            raise ValueError(f"{file} holds no usable record{reason}")
        return samples, skipped

    def _sample(self, record: Any, number: int, folder: Path) -> Sample:
        """
        Raises:
            ValueError: what is wrong with the record.
        """
        if isinstance(record, RecordError):
            raise record
        if not isinstance(record, dict):
            raise ValueError(f"a record must be an object, not {_kind(record)}")
        turns = _turns(record.get("conversations"))
        seen = observations(record.get("observations"), turns)
        names = _several(record.get("image"))
        images = tuple(ImageFile(self._path(name, folder), name, self.pixels) for name in names)
        if clips := _several(record.get("video")):
            paths = [self._path(name, folder, "video") for name in clips]
            videos = [
                frames(path, self.frames, name=name, pixels=self.pixels)
                for path, name in zip(paths, clips, strict=True)
            ]
            return Sample(*expand_videos(turns, images, videos), "reply", _id(record, number), seen)
        tagged = [turn.text.count(TAG) for turn in turns if turn.role == "user" and TAG in turn.text]
        if len(images) == 1 and len(tagged) > 1:
            raise ValueError(f"one image is tagged in {len(tagged)} turns")
        if len(images) > 1 and sum(tagged) != len(images):
            raise ValueError(f"{sum(tagged)} tags {TAG} for {len(images)} images")
        return Sample(turns, images, "reply", _id(record, number), seen)

    def _path(self, name: Any, folder: Path, what: str = "image") -> str:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{what} must be the name of a file, not {_kind(name)}")
        # Read as on Windows, where either slash divides and `C:` is a place of its own.
        path = PureWindowsPath(name)
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{what} {name!r} lies outside the folder of the images")
        if self.verify and not ((folder / name).is_file() or (what == "video" and (folder / name).is_dir())):
            raise ValueError(f"{what} {name!r} is not in {folder}")
        return join(folder, name)


class RecordError(ValueError):
    """A line that could not be read, in the place of its record."""


def _records(file: Path) -> Iterator[Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"data.file ({file}) is not there; give the JSON file of the records") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"data.file ({file}) cannot be read: {error.strerror}") from None
    if file.suffix == ".jsonl":
        for line in filter(str.strip, text.split("\n")):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                yield RecordError(_reason(error))
        return
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is not JSON ({_reason(error)}); one record a line is read from a .jsonl file"
        ) from None
    if not isinstance(records, list):
        raise ValueError(f"{file} must hold a list of records, not {_kind(records)}")
    yield from records


def _id(record: Any, number: int) -> str:
    id = record.get("id") if isinstance(record, dict) else None
    return f"#{number}" if id is None else str(id)


def _several(names: Any) -> list[Any]:
    return [] if names is None else names if isinstance(names, list) else [names]


def _turns(conversations: Any) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise ValueError("conversations are missing")
    turns = []
    for index, turn in enumerate(conversations):
        wanted = ("human", "gpt")[index % 2]
        role, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if role != wanted:
            raise ValueError(f"turn {index + 1} must be from {wanted!r}, not {role!r}")
        if not isinstance(text, str):
            raise ValueError(f"the value of turn {index + 1} must be text, not {_kind(text)}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"turn {index + 1} holds half a character (a lone surrogate)") from None
        if role == "gpt" and not text.strip():
            raise ValueError(f"turn {index + 1} is an empty reply")
        turns.append(Turn(ROLES[role], text))
    if len(turns) < 2:
        raise ValueError("there is no reply to learn from")
    return tuple(turns)


def _kind(value: Any) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "empty text" if value == "" else names.get(type(value), "a number")


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
