"""Audio files as waveforms."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.data.image import ImageError
from mmrnn.io.optional import require

SAMPLE_RATE = 16_000
"""Samples a second of every waveform: files of other rates are resampled."""

MAX_SECONDS = 3600
"""Longest clip that is decoded: a small file may hold days of silence."""

CONTAINERS = {
    ".wav": "wav",
    ".flac": "flac",
    ".mp3": "mp3",
    ".ogg": "ogg",
    ".opus": "ogg",
    ".m4a": "mov",
    ".aac": "aac",
    ".webm": "matroska",
}
"""FFmpeg demuxer by suffix. FFmpeg must not guess it: a disguised playlist would open other files."""


EXACT_HEADERS = {"wav", "flac"}
"""Demuxers whose header says the number of samples. Others estimate it, or count what the decoder drops."""


class AudioError(ImageError):
    """An audio file that cannot be read, in one sentence; handled as an image that cannot be opened."""

    def __init__(self, message: str, reason: str = "an audio file cannot be read") -> None:
        super().__init__(message, reason)


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A clip in a file; nothing is opened before `open`.

    Attributes:
        path: of the file.
        name: used as the key in place of the path.
        max_seconds: longer clips are refused.
    """

    path: str | Path
    name: str = ""
    max_seconds: float = MAX_SECONDS

    @property
    def key(self) -> str:
        """Stable identifier of the clip."""
        return self.name or str(self.path)

    def open(self) -> Float[Tensor, "1 samples"]:
        """Return the waveform. See `read_audio`.

        Raises:
            AudioError: the file cannot be read.
            ImportError: PyAV is not installed.
        """
        return read_audio(self.path, self.max_seconds)

    def size(self) -> tuple[int, int]:
        """Return 1 and the number of samples. See `count_samples`.

        Raises:
            AudioError: the file cannot be read.
            ImportError: PyAV is not installed.
        """
        return 1, count_samples(self.path, self.max_seconds)


def read_audio(path: str | Path, max_seconds: float = MAX_SECONDS) -> Float[Tensor, "1 samples"]:
    """Return the waveform of a file: one channel, 16,000 samples a second, amplitudes of about -1 to 1.

    Several channels are mixed. The file is decoded by PyAV.

    Raises:
        AudioError: the file is not there, no audio of a known format, broken, empty, or longer than `max_seconds`.
        ImportError: PyAV is not installed.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        waveform = _decode(container, stream, path, max_seconds)
    if not waveform.numel():
        raise AudioError(f"{path} holds no samples")
    if not waveform.isfinite().all():
        raise AudioError(f"{path} holds samples that are no finite numbers")
    return waveform


def count_samples(path: str | Path, max_seconds: float = MAX_SECONDS) -> int:
    """Return the number of samples of the waveform of a file: from the header of .wav and .flac; others are decoded.

    Where a header has another rate than 16 kHz, resampling may make one sample less.

    Raises:
        AudioError: as `read_audio`.
        ImportError: PyAV is not installed.
    """
    with _opened(Path(path)) as (container, stream):
        if container.format.name in EXACT_HEADERS and stream.duration:
            return ceil(stream.duration * stream.time_base * SAMPLE_RATE)
    return read_audio(path, max_seconds).shape[1]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open the container of a file, with its audio stream; whatever then fails is a fault of the file."""
    if not os.path.isfile(path):
        raise AudioError(f"{path} is not there")
    if path.suffix.lower() not in CONTAINERS:
        raise AudioError(f"{path} is no audio of a known format ({', '.join(CONTAINERS)}); convert it to .wav")
    av = require("av", "PyAV", wanted_by=path.name, extra="audio")
    try:
        with path.open("rb") as file, av.open(file, format=CONTAINERS[path.suffix.lower()]) as container:
            [stream, *_] = container.streams.audio or [None]
            if stream is None:
                raise AudioError(f"{path} has no audio")
            yield container, stream
    except AudioError:
        raise
    except Exception as error:  # a broken file makes FFmpeg raise almost anything
        raise AudioError(f"{path} is broken: {error or type(error).__name__}") from error


def _decode(container: Any, stream: Any, path: Path, max_seconds: float) -> Float[Tensor, "1 samples"]:
    from av import AudioResampler

    limit, parts, total = int(max_seconds * SAMPLE_RATE), [], 0
    resampler = AudioResampler(format="fltp", rate=SAMPLE_RATE)
    for frame in chain(container.decode(stream), [None]):  # None: what the filter still holds
        for piece in resampler.resample(frame):
            # Not mixed by FFmpeg, whose sum of two equal channels is louder than either.
            parts.append(torch.from_numpy(piece.to_ndarray()).float().mean(0, keepdim=True))
            total += parts[-1].shape[1]
        if total > limit:
            raise AudioError(f"{path} is longer than {max_seconds:g} s")
    return torch.cat(parts, dim=1) if parts else torch.empty(1, 0)
