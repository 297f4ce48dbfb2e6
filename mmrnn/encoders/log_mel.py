"""Log-mel spectrogram of a waveform, as Whisper reads it."""

import math
from contextlib import nullcontext
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from mmrnn.io.optional import require

SAMPLE_RATE = 16_000
"""Samples a second of every waveform."""

WINDOW = 400
"""Samples of a window: 25 ms."""

HOP = 160
"""Samples from one frame to the next: 10 ms."""


def log_mel(waveform: Float[Tensor, "m samples"], mels: int) -> Float[Tensor, "m mels frames"]:
    """Compute the log-mel spectrogram of Whisper (arXiv 2212.04356): one frame for every 10 ms.

    Powers are cut off 80 dB below the loudest one of a clip, then scaled to about -1 to 1. In fp32.

    Raises:
        ImportError: transformers, which has the mel filters, is not installed.
    """
    waveform = waveform.float()
    window = torch.hann_window(WINDOW, device=waveform.device)
    spectrum = torch.stft(waveform, WINDOW, HOP, window=window, return_complex=True)[..., :-1]
    # In fp32 also under autocast; the meta device has none.
    with nullcontext() if waveform.is_meta else torch.autocast(waveform.device.type, enabled=False):
        power = mel_filters(mels).to(waveform.device) @ spectrum.abs().square()
    log = power.clamp_min(1e-10).log10()
    return (log.maximum(log.amax((1, 2), keepdim=True) - 8) + 4) / 4


@cache
def mel_filters(mels: int) -> Float[Tensor, "mels bins"]:
    """Return the triangular filters of the Slaney mel scale, of equal area, on the CPU.

    Raises:
        ImportError: transformers is not installed.
    """
    audio = require("transformers.audio_utils", "transformers", wanted_by="a log-mel spectrogram", extra="audio")
    filters = audio.mel_filter_bank(
        WINDOW // 2 + 1, mels, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    with torch.device("cpu"):
        return torch.from_numpy(filters.T).float().contiguous()


def sinusoids(length: int, width: int) -> Float[Tensor, "length width"]:
    """Return Whisper's position table: sines of all frequencies, then cosines, from 1 to 1/10000."""
    half = width // 2
    scale = torch.exp(torch.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
    angle = torch.arange(length)[:, None] * scale
    return torch.cat([angle.sin(), angle.cos()], dim=1)
