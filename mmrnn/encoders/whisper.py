"""Encoder of Whisper: waveforms to tokens."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.encoders.log_mel import HOP, SAMPLE_RATE, log_mel, sinusoids
from mmrnn.layers.recompute import run_block
from mmrnn.types import Encoder, ImageSpec, Layout, NonNegativeInt, PositiveInt, reset_layers


class WhisperAttention(nn.Module):
    """Self-attention of all positions; keys have no bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "m n e"]) -> Float[Tensor, "m n e"]:
        """Attend to every position."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return self.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class WhisperBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, ffn: int):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = WhisperAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)

    def forward(self, x: Float[Tensor, "m n e"]) -> Float[Tensor, "m n e"]:
        """Run the block."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class WhisperEncoder(nn.Module, Encoder):
    """Encoder of Whisper (arXiv 2212.04356): log-mel spectrogram, two convolutions, transformer blocks.

    The input is a waveform of 16 kHz, `m 1 samples`, instead of images. As Whisper was trained, a clip is filled up
    with silence to `positions` tokens, which all positions attend to; only the tokens of the clip are returned, one for
    every 20 ms.

    Args:
        mels: channels of the spectrogram.
        width: `e`.
        depth: number of blocks.
        heads: of the attention.
        ffn: hidden width of the MLP; None: 4 x width.
        positions: tokens of the longest clip (1500: 30 seconds).
        fill: fill a clip up with silence; False: encode it alone, which is faster and not what Whisper has learnt.
        grad_checkpointing: recompute every n-th block in the backward pass to save memory; 1: all, 0: none.
        pretrained: weights that `mmrnn.build` loads: a file, a folder, or `owner/name` on the Hugging Face hub.

    Raises:
        ValueError: `width` is no multiple of `heads`.
    """

    def __init__(
        self,
        *,
        mels: PositiveInt = 80,
        width: PositiveInt = 768,
        depth: PositiveInt = 12,
        heads: PositiveInt = 12,
        ffn: PositiveInt | None = None,
        positions: PositiveInt = 1500,
        fill: bool = True,
        grad_checkpointing: NonNegativeInt = 0,
        pretrained: str | None = None,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
        self.mels, self.width, self.fill = mels, width, fill
        self.grad_checkpointing, self.pretrained = grad_checkpointing, pretrained
        self.image = ImageSpec((1, positions * 2 * HOP), resize="none")
        self.conv1 = nn.Conv1d(mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.empty(positions, width))
        self.blocks = nn.ModuleList(WhisperBlock(width, heads, ffn or 4 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.reset_positions()

    def reset(self) -> None:
        """Initialise in place: layers as those of torch, positions as sines and cosines."""
        reset_layers(self)
        self.reset_positions()

    @torch.no_grad()
    def reset_positions(self) -> None:
        """Fill in the position table."""
        self.positions.copy_(sinusoids(*self.positions.shape))

    def layout(self, height: int, width: int) -> Layout:
        """Layout of the tokens of a waveform of `width` samples.

        Raises:
            ValueError: the waveform is empty or too long, or there are several channels.
        """
        if height != 1:
            raise ValueError(f"a waveform has one channel, got {height}; mix them")
        longest = self.image.size[1]
        if not 0 < width <= longest:
            seconds, most = width / SAMPLE_RATE, longest / SAMPLE_RATE
            raise ValueError(
                f"a clip of {seconds:.2f} s does not fit: this encoder reads more than 0 and up to {most:g} s"
            )
        return Layout(prefix=-(-width // (2 * HOP)))

    def forward(self, waveforms: Float[Tensor, "m 1 samples"]) -> Float[Tensor, "m n e"]:
        """Encode waveforms of one length.

        Raises:
            ValueError: see `layout`.
        """
        tokens, samples = self.layout(*waveforms.shape[-2:]).prefix, waveforms.shape[-1]
        length = self.image.size[1] if self.fill else tokens * 2 * HOP
        spectrum = log_mel(F.pad(waveforms[:, 0], (0, length - samples)), self.mels)
        x = F.gelu(self.conv1(spectrum.to(self.conv1.weight.dtype)))
        x = F.gelu(self.conv2(x)).mT
        x = x + self.positions[: x.shape[1]]
        for index, block in enumerate(self.blocks):
            x = run_block(block, index, self.grad_checkpointing, x)
        return self.norm(x)[:, :tokens]
