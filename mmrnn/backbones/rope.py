"""Rotary position embedding (RoFormer, arXiv 2104.09864)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def apply_rope(
    x: Float[Tensor, "b h t k"], positions: Int[Tensor, "b t"], theta: float | Float[Tensor, " b"]
) -> Float[Tensor, "b h t k"]:
    """Rotate queries or keys, in Llama's layout: channel i is paired with channel i + k/2.

    Args:
        theta: base of the frequencies, one for all rows or one for each.
    """
    half = x.shape[-1] // 2
    theta = theta[:, None, None, None] if isinstance(theta, Tensor) else theta
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = positions[:, None, :, None].float() * frequency  # b 1 t k/2
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
