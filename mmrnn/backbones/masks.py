"""Masks: which tokens of a sequence each token may see in a transformer. Pure functions of the sequence."""

import torch
from jaxtyping import Bool
from torch import Tensor

from mmrnn.types import IGNORE, Mask, Sequence, implements


@implements(Mask, causal=True)
def causal(sequence: Sequence) -> None:
    """Each token sees those before it: what a backbone does by itself."""
    return None


@implements(Mask)
def prefix(sequence: Sequence, *, start: int | None = None) -> Bool[Tensor, "b t t"]:
    """The context sees all of itself, the reply what is before it (GLM, arXiv 2103.10360; prefix language model).

    Args:
        start: the id of the token that opens the reply. None: the reply opens with the first target; a sequence
            without targets, a prompt, is context as a whole.
    """
    ids = sequence.ids
    t = ids.shape[1]
    segments = torch.zeros_like(ids) if sequence.segments is None else sequence.segments
    if start is not None:
        opens = ids == start
    elif sequence.labels is not None:
        opens = sequence.labels != IGNORE
    else:
        opens = torch.zeros_like(ids, dtype=torch.bool)
    same = segments[:, :, None] == segments[:, None]
    steps = torch.arange(t, device=ids.device)
    before = steps[:, None] >= steps  # rows see columns
    reply = (same & before & opens[:, None]).any(-1)
    return same & (before | ~reply[:, None])
