"""Default sizes and published initialisation shared by the RWKV versions (RWKV-LM since April 2024)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn


def default_ffn(width: int) -> int:
    """Return the published channel-mix width of RWKV-5 and RWKV-6: 3.5 x width, rounded down to a multiple of 32."""
    return max(int(width * 3.5) // 32, 1) * 32


def default_heads(width: int, heads: int | None, head_size: int) -> int:
    """Return `heads`, or width / head_size where it is None.

    Raises:
        ValueError: `heads` is None and the width is no multiple of the head size.
    """
    for _, fault in head_faults(width, heads, head_size):
        raise ValueError(fault)
    return width // head_size if heads is None else heads


def head_faults(width: int, heads: int | None, head_size: int) -> Iterator[tuple[str, str]]:
    """Yield that the heads do not fill the width. See `ChecksKnobs`."""
    if heads is None and width % head_size:
        yield "width", f"width ({width}) must be a multiple of head_size ({head_size}), or set heads"


def channel_ramp(like: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Return 0/d, 1/d, ..., (d-1)/d with the device and dtype of `like`."""
    return torch.arange(len(like), device=like.device, dtype=like.dtype) / len(like)


def init_time_mix(mix: nn.Module, layer: int, depth: int) -> None:
    """Initialise decay, bonus, norm and projections of an RWKV-5 or RWKV-6 time mix."""
    size, rise = mix.decay.numel(), layer / max(depth - 1, 1)  # 0 for the first layer, 1 for the last
    index = torch.arange(size, device=mix.decay.device, dtype=mix.decay.dtype)
    fraction = index / max(size - 1, 1)
    mix.decay.copy_((-6 + 5 * fraction ** (0.7 + 1.3 * rise)).view_as(mix.decay))
    mix.bonus.copy_((rise * (1 - fraction) + 0.1 * ((index + 1) % 3 - 1)).view_as(mix.bonus))
    nn.init.orthogonal_(mix.receptance.weight)
    nn.init.orthogonal_(mix.value.weight)
    nn.init.orthogonal_(mix.key.weight, gain=0.1)
    if mix.gate is not None:
        nn.init.orthogonal_(mix.gate.weight, gain=0.1)
    nn.init.zeros_(mix.output.weight)
    mix.norm.weight.fill_(((1 + layer) / depth) ** 0.7)
