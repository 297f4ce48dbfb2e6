"""Transforms of functions that a custom op of torch hides its formula from."""

import torch
from torch.autograd import forward_ad


def is_transformed() -> bool:
    """Return whether a transform of `torch.func` (vmap, jvp, jacrev, ...) or a level of forward-mode AD is active.

    A custom op would lose the tangents without a word. Also right while `torch.compile` traces.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
