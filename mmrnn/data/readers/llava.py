"""Reader of records in JSON: the format of LLaVA, which VisualRWKV and most other projects use, and its relatives."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mmrnn.data.audio import AudioFile
from mmrnn.data.image import MAX_PIXELS
from mmrnn.data.observations import parse_observations
from mmrnn.data.readers.dialogue import parse_dialogue
from mmrnn.data.readers.image_folder import ImageFolder
from mmrnn.data.readers.record_dataset import Parsed, RecordDataset
from mmrnn.data.rgb import Decoding
from mmrnn.data.video import DEFAULT_FRAMES
from mmrnn.data.video_turns import expand_videos, video_inputs
from mmrnn.io.errors import RecordError
from mmrnn.io.records.json_files import JsonLines, JsonList
from mmrnn.types import Fraction, PositiveInt
from mmrnn.types.records import Blob, Record
from mmrnn.types.sample import Sample


class LLaVAJson(RecordDataset):
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
    `video`; OpenAI, Hugging Face). `"audio": "clip.wav"` (or a list) belongs to `<audio>`, where PyAV is installed. An
    image may be a `data:` URL. An assistant's turn before the first question is left out, as in LLaVA.

    Invalid records are left out; `skipped` lists them with the reason. The file is indexed at first use (see
    `RecordDataset`): records are read and images opened on demand.

    Args:
        file: of the records; a pattern (`part-{000..099}.jsonl`, `*.json`) names several.
        image_folder: root of the images' paths; None: the folder of `file`.
        verify: check at first use that every image file exists, and skip the record if not.
        max_pixels: larger images are refused.
        frames: number of frames taken from a video.
        grid: rows and columns of frames that are put into one image, so that together they take its tokens; None: each
            frame is an image.
        temporal_patch: frames that are one input together, behind their time in the text, for encoders whose patches
            span time (Qwen3.5: 2); 1: each is an image.
        decoding: way to RGB.
        absolute_paths: accept absolute paths of images, so that a record can name any file of the machine.
        holdout: share of the records that is not trained on, selected by a hash of their ids, and evaluated by exact
            match of the last replies (which is informative where these are short).
        split: `train`, or `holdout` for that share.
        index_folder: of the indices of large files; None: that of each file.

    Raises:
        ValueError: `holdout` is outside 0 to 1, or `frames` below 1 or no multiple of those of a
            grid, or there are a grid and a temporal patch.
    """

    formats: ClassVar = {".json": JsonList, ".jsonl": JsonLines}
    wanted: ClassVar = "JSON file of the records"

    def __init__(
        self,
        *,
        file: str | None = None,
        image_folder: str | None = None,
        verify: bool = False,
        max_pixels: PositiveInt = MAX_PIXELS,
        frames: PositiveInt = DEFAULT_FRAMES,
        grid: tuple[PositiveInt, PositiveInt] | None = None,
        temporal_patch: PositiveInt = 1,
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
        if frames < 1:
            raise ValueError(f"frames ({frames}) must be at least 1")
        if grid is not None and frames % (grid[0] * grid[1]):
            raise ValueError(f"frames ({frames}) must be a multiple of {grid[0]} x {grid[1]}, the frames of a grid")
        if grid is not None and temporal_patch > 1:
            raise ValueError(f"temporal_patch ({temporal_patch}) and grid exclude each other: leave one of them out")
        self.frames, self.grid, self.temporal_patch = frames, grid, temporal_patch

    def parse(self, record: Record, id: str, images: ImageFolder) -> Parsed:
        """Return the sample of a record. See `RecordDataset`."""
        options = {"grid": self.grid, "temporal_patch": self.temporal_patch}
        return dialogue_sample(record.content, id, images, frames_of_video=self.frames, **options)


def dialogue_sample(
    content: Any,
    id: str,
    images: ImageFolder,
    stored: Mapping[str, Blob] | None = None,
    *,
    frames_of_video: int = DEFAULT_FRAMES,
    grid: tuple[int, int] | None = None,
    temporal_patch: int = 1,
) -> Parsed:
    """Return the sample of a dialogue.

    Args:
        content: of the record.
        id: of the sample.
        images: makes images of the names in the record.
        stored: files that are stored with the record, by name.
        frames_of_video: number of frames taken from a video.
        grid: rows and columns of frames in one image; None: each is an image.
        temporal_patch: frames of one input.

    Raises:
        ValueError: the record, its observations or files are invalid.
    """
    dialogue = parse_dialogue(content)
    turns = dialogue.turns
    observations = parse_observations(content.get("observations"), turns)
    if dialogue.audios:
        if "audio" in observations:
            raise RecordError("a record must not have audio beside observations of it")
        clips = tuple(AudioFile(images.path(name, "audio"), name) for name in dialogue.audios)
        observations = {**observations, "audio": clips}
    found = tuple(images.image(name, stored or {}, id) for name in dialogue.images)
    if dialogue.videos:
        options = {"grid": grid, "temporal_patch": temporal_patch}
        options |= {"max_pixels": images.max_pixels, "decoding": images.decoding}
        videos = [
            video_inputs(images.path(name, "video"), frames_of_video, name=name, **options) for name in dialogue.videos
        ]
        turns, found = expand_videos(turns, found, videos)
    known = content.get("class_id")
    if known is not None and (type(known) is not int or known < 0):
        raise ValueError(f"class_id ({known!r:.40}) must be a whole number from 0 on")
    return Parsed(Sample(turns, found, "reply", id, observations, known), dialogue.notes)
