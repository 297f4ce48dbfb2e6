"""Attention masks of transformers: pure functions of the sequence."""

import torch
from jaxtyping import Bool
from torch import Tensor

from mmrnn.types import IGNORE, Mask, NonNegativeInt, Sequence, implements


@implements(Mask, causal=True)
def causal(sequence: Sequence) -> None:
    """Return None: the backbone masks causally itself."""
    return None


@implements(Mask)
def prefix(sequence: Sequence, *, start: NonNegativeInt | None = None) -> Bool[Tensor, "b t t"]:
    """Mask a prefix language model: bidirectional in the context, causal in the reply (GLM, arXiv 2103.10360).

    Args:
        start: id of the token that starts the reply. None: the reply starts at the first target, and a sequence
            without targets (a prompt) is all context.
    """
    ids = sequence.ids
    t = ids.shape[1]
    segments = torch.zeros_like(ids) if sequence.segments is None else sequence.segments
    if start is not None:
        starts = ids == start
    elif sequence.labels is not None:
        starts = sequence.labels != IGNORE
    else:
        starts = torch.zeros_like(ids, dtype=torch.bool)
    same_segment = segments[:, :, None] == segments[:, None]
    steps = torch.arange(t, device=ids.device)
    causal_mask = steps[:, None] >= steps  # query, key
    reply = (same_segment & causal_mask & starts[:, None]).any(-1)
    return same_segment & (causal_mask | ~reply[:, None])
