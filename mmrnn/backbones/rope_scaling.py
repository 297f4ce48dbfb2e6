"""Long-context scaling: dynamic NTK RoPE and log-n attention (Qwen-7B)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class LongContextScaling:
    """Scaling of one forward pass.

    Attributes:
        rope_theta: base of the rotary frequencies of each row.
        log_n: factor of the query at each position.
    """

    rope_theta: Float[Tensor, " b"]
    log_n: Float[Tensor, "b t"]


def ntk_alpha(tokens: Int[Tensor, " b"], train_length: int) -> Float[Tensor, " b"]:
    """Dynamic NTK factor for rows of `tokens` tokens: 1 up to `train_length`, 3 up to twice as many, then 7, 15, ..."""
    doublings = torch.log2(tokens.float() / train_length).ceil()
    return (2 ** (doublings + 1) - 1).clamp(min=1)


def log_n_scale(positions: Int[Tensor, "b t"], train_length: int) -> Float[Tensor, "b t"]:
    """Query factor of log-n attention: log(n) / log(train_length) at the n-th token, at least 1.

    It keeps the entropy of the attention weights from growing with the number of keys.
    """
    n = (positions + 1).float().clamp(min=train_length)
    return n.log() / torch.tensor(float(train_length)).log()


def long_context_scaling(
    positions: Int[Tensor, "b t"],
    alpha: Float[Tensor, " b"] | None,
    *,
    train_length: int,
    rope_theta: float,
    head_size: int,
) -> tuple[LongContextScaling, Float[Tensor, " b"]]:
    """Scaling of a forward pass, and the NTK factor of each row, to be passed to the next one as `alpha`.

    The first pass over a row fixes its factor, because cached keys were rotated with it.

    Args:
        alpha: NTK factor of the cached keys; None, and 0 for a row: nothing is cached.
        train_length: context length that the weights were trained with.
    """
    first = ntk_alpha(positions[:, -1] + 1, train_length)
    alpha = first if alpha is None else torch.where(alpha > 0, alpha, first)
    base = rope_theta * alpha ** (head_size / (head_size - 2))
    return LongContextScaling(base, log_n_scale(positions, train_length)), alpha
