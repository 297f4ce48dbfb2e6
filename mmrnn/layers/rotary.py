"""Rotary positions (RoFormer, arXiv 2104.09864), also in several axes (M-RoPE: Qwen2-VL, arXiv 2409.12191)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

AXES = 3
"""Position ids of a token: time, height, width."""


def frequency_axes(section: Sequence[int], interleaved: bool) -> list[int]:
    """Return the axis whose position turns each frequency.

    Args:
        section: frequencies of time, height and width.
        interleaved: they take turns, as far as each has some (Qwen3-VL), in place of one block each (Qwen2-VL).
    """
    if not interleaved:
        return [axis for axis, count in enumerate(section) for _ in range(count)]
    axes = [0] * sum(section)
    for axis in (1, 2):
        for place in range(axis, AXES * section[axis], AXES):
            axes[place] = axis
    return axes


def rotary_angles(
    positions: Int[Tensor, "b t *axes"], size: int, theta: float | Float[Tensor, " b"], axes: Sequence[int] = ()
) -> Float[Tensor, "b t half"]:
    """Return the angle of every frequency at every position, in fp32.

    Args:
        positions: one id a token, or AXES ids.
        size: rotated channels of a head.
        theta: base of the frequencies, one for all rows or one for each.
        axes: of each frequency (`frequency_axes`); empty: there is one position a token.
    """
    half = size // 2
    theta = theta[:, None, None] if isinstance(theta, Tensor) else theta
    frequency = theta ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    turned = positions if positions.dim() == 3 else positions[..., None]
    if turned.shape[-1] > 1:
        turned = turned[..., torch.tensor(axes).to(turned.device, non_blocking=True)]
    return turned.float() * frequency


def rotate(x: Float[Tensor, "b h t k"], angle: Float[Tensor, "#b t half"]) -> Float[Tensor, "b h t k"]:
    """Rotate the first `2 half` channels in Llama's layout, channel i paired with i + half; the others stay."""
    half = angle.shape[-1]
    cos, sin = (y[:, None].to(x.dtype) for y in (angle.cos(), angle.sin()))
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
