"""Reply to a question, and its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Token(NamedTuple):
    """A token of a reply.

    Attributes:
        id: of the token.
        log_prob: natural logarithm of its probability, before any temperature, penalty or limit; None: not asked for.
        top: ids and log-probabilities of the most likely tokens in its place, the most likely one first.
    """

    id: int
    log_prob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    """A reply to a question.

    Attributes:
        text: without what ended it.
        tokens: those that ended it included.
        finish_reason: `stop`: an end id or a stop string; `length`: the limit of tokens.
    """

    text: str
    tokens: tuple[Token, ...]
    finish_reason: Literal["stop", "length"]


def check_log_probs(log_probs: int | None) -> None:
    """Check a number of most likely tokens to return at each step.

    Raises:
        ValueError: it is no whole number from 0 on.
    """
    if log_probs is not None and (type(log_probs) is not int or log_probs < 0):
        raise ValueError(f"log_probs ({log_probs!r}) must be a number of most likely tokens; 0: the chosen ones alone")


def make_tokens(ids: Int[Tensor, " b"], logits: Float[Tensor, "b vocab"], log_probs: int | None) -> Sequence[Token]:
    """Return the chosen tokens of some rows.

    Args:
        ids: chosen from `logits`.
        logits: of the model.
        log_probs: most likely tokens to give with each; None: neither these nor log-probabilities.
    """
    if log_probs is None:
        return [Token(id) for id in ids.tolist()]
    all_log_probs = logits.float().log_softmax(-1)
    chosen = all_log_probs.gather(1, ids[:, None])[:, 0].tolist()
    top = torch.topk(all_log_probs, min(log_probs, logits.shape[-1]))
    best = [tuple(zip(*row, strict=True)) for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
    return [Token(*each) for each in zip(ids.tolist(), chosen, best, strict=True)]
