"""Reader of the JSON format of LLaVA, which VisualRWKV and most other projects use."""

import json
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from os.path import join
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from mmrnn.data.image import MAX_PIXELS, ImageFile
from mmrnn.data.observations import parse_observations
from mmrnn.data.video import DEFAULT_FRAMES, expand_videos, frames
from mmrnn.types import Fraction, MapDataset, PositiveInt
from mmrnn.types.sample import TAG, ImageSource, Sample, Turn

ROLES = {"human": "user", "gpt": "assistant"}
"""Roles of the format, in the order of their turns, and ours."""


class LLaVAJson(MapDataset):
    r"""Samples of a JSON list of records, or of a `.jsonl` file with one record a line.

    A record:

        {"id": "…", "image": "folder/xyz.jpg",
         "conversations": [{"from": "human", "value": "<image>\n…?"}, {"from": "gpt", "value": "…"}, …]}

    `image` may be missing (text only: a tag is then plain text) or a list (one tag for each). A single image
    without a tag is not shown to the model. `"video": "folder/clip.gif"` (or a list) belongs to `<video>`: an animated
    image, a folder of images, or a video file where PyAV is installed. `"observations": {"state": [[0.1, 0.2], [0.3,
    0.4]]}` are inputs of other modalities, a matrix (`objects features`) or a list of them, one for each `<state>`.

    Invalid records are left out; `skipped` lists them with the reason. The file is read at first use, images are opened
    on demand.

    Args:
        file: of the records.
        image_folder: root of the images' paths; None: the folder of `file`.
        verify: check at first use that every image file exists, and skip the record if not.
        max_pixels: larger images are refused.
        frames: number of frames taken from a video.
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
        holdout: Fraction = 0.0,
        split: Literal["train", "holdout"] = "train",
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout ({holdout}) must lie between 0 and 1")
        if frames < 1:
            raise ValueError(f"frames ({frames}) must be at least 1")
        self.file, self.image_folder, self.verify, self.max_pixels = file, image_folder, verify, max_pixels
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
            holdout=self.holdout,
            split="holdout",
        )
        del rest._samples[samples:]
        return {"records": rest} if len(rest) else {}

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Id (or number, `#12`, counted from 0) of each record left out, and the reason."""
        return self._content[1]

    def left_out(self) -> list[tuple[str, str]]:
        """Return `skipped`."""
        return self.skipped

    @cached_property
    def _samples(self) -> list[Sample]:
        return [sample for sample in self._content[0] if self._is_held_out(sample) == (self.split == "holdout")]

    def _is_held_out(self, sample: Sample) -> bool:
        digest = sha256(sample.id.encode()).digest()
        return int.from_bytes(digest[:4], "big") < self.holdout * 2**32

    @cached_property
    def _content(self) -> tuple[list[Sample], list[tuple[str, str]]]:
        """Samples of the file, and the records left out.

        Raises:
            ValueError: the file or folder does not exist, is not of this format, or has no valid record.
        """
        if self.file is None:
            raise ValueError("data.file is not set; set it to the JSON file of the records")
        file = Path(self.file)
        folder = Path(self.image_folder) if self.image_folder is not None else file.parent
        if not folder.is_dir():
            raise ValueError(f"data.image_folder ({folder}) is no folder; set it to the root of the images' paths")
        samples, skipped = [], []
        for number, record in enumerate(_records(file)):
            try:
                samples.append(self._sample(record, number, folder))
            except ValueError as fault:
                skipped.append((_id(record, number), str(fault)))
        if not samples:
            reason = f"; the first ({skipped[0][0]}): {skipped[0][1]}" if skipped else ""
            raise ValueError(f"{file} holds no valid record{reason}")
        return samples, skipped

    def _sample(self, record: Any, number: int, folder: Path) -> Sample:
        """Sample of a record.

        Raises:
            ValueError: the record is invalid.
        """
        if isinstance(record, RecordError):
            raise record
        if not isinstance(record, dict):
            raise ValueError(f"a record must be an object, not {_kind(record)}")
        turns = _turns(record.get("conversations"))
        observations = parse_observations(record.get("observations"), turns)
        names = _as_list(record.get("image"))
        images = tuple(ImageFile(self._path(name, folder), name, self.max_pixels) for name in names)
        if clips := _as_list(record.get("video")):
            paths = [self._path(name, folder, "video") for name in clips]
            videos = [
                frames(path, self.frames, name=name, max_pixels=self.max_pixels)
                for path, name in zip(paths, clips, strict=True)
            ]
            return Sample(*expand_videos(turns, images, videos), "reply", _id(record, number), observations)
        tagged = [turn.text.count(TAG) for turn in turns if turn.role == "user" and TAG in turn.text]
        if len(images) == 1 and len(tagged) > 1:
            raise ValueError(f"one image is tagged in {len(tagged)} turns")
        if len(images) > 1 and sum(tagged) != len(images):
            raise ValueError(f"{sum(tagged)} tags {TAG} for {len(images)} images")
        return Sample(turns, images, "reply", _id(record, number), observations)

    def _path(self, name: Any, folder: Path, what: str = "image") -> str:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{what} must be the name of a file, not {_kind(name)}")
        # Parsed as on Windows, where either slash separates and a drive (`C:`) is absolute.
        path = PureWindowsPath(name)
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{what} {name!r} is outside the folder of the images")
        if self.verify and not ((folder / name).is_file() or (what == "video" and (folder / name).is_dir())):
            raise ValueError(f"{what} {name!r} is not in {folder}")
        return join(folder, name)


class RecordError(ValueError):
    """Fault of a line, in place of its record."""


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
                yield RecordError(_reason(error))
        return
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is not JSON ({_reason(error)}); a file with one record a line must end in .jsonl"
        ) from None
    if not isinstance(records, list):
        raise ValueError(f"{file} must hold a list of records, not {_kind(records)}")
    yield from records


def _id(record: Any, number: int) -> str:
    id = record.get("id") if isinstance(record, dict) else None
    return f"#{number}" if id is None else str(id)


def _as_list(names: Any) -> list[Any]:
    return [] if names is None else names if isinstance(names, list) else [names]


def _turns(conversations: Any) -> tuple[Turn, ...]:
    if not isinstance(conversations, list) or not conversations:
        raise ValueError("conversations must be a list of turns")
    turns = []
    for index, turn in enumerate(conversations):
        expected = list(ROLES)[index % 2]
        role, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if role != expected:
            raise ValueError(f"turn {index + 1} must be from {expected!r}, not {role!r}")
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
        raise ValueError("there is no reply to train on")
    return tuple(turns)


def _kind(value: Any) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "empty text" if value == "" else names.get(type(value), "a number")


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
