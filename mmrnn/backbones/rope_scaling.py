"""What a transformer does about texts that are longer than those it was trained on: Qwen-7B's two remedies."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class LongContextScaling:
    """The base of the rotary frequencies of every row, and by what its queries are multiplied."""

    theta: Float[Tensor, " b"]
    scale: Float[Tensor, "b t"]


def ntk_alpha(tokens: Int[Tensor, " b"], length: int) -> Float[Tensor, " b"]:
    """By how much positions are stretched (dynamic NTK): 1 up to `length` tokens, 3 up to twice as many, 7, 15, ..."""
    times = torch.log2(tokens.float() / length)
    return (2 ** (times.ceil() + 1) - 1).clamp(min=1)


def log_n_scale(positions: Int[Tensor, "b t"], length: int) -> Float[Tensor, "b t"]:
    """Log n / log `length` for the n-th token where n is larger than `length`, else 1: attention over more tokens would
    be flatter (log-n scaling).
    """
    number = (positions + 1).float().clamp(min=length)
    return number.log() / torch.tensor(float(length)).log()


def longer(
    positions: Int[Tensor, "b t"], known: Float[Tensor, " b"] | None, *, length: int, theta: float, head_size: int
) -> tuple[LongContextScaling, Float[Tensor, " b"]]:
    """Both, and the stretch that the next call has to know: what is read first decides it for all that follows, because
    keys are kept as they were turned.

    Args:
        known: the stretch of what was read before.
        length: tokens that the language model was trained on.
    """
    stretch = ntk_alpha(positions[:, -1] + 1, length) if known is None else known
    return LongContextScaling(theta * stretch ** (head_size / (head_size - 2)), log_n_scale(positions, length)), stretch
