"""Learning rates over time, as pure functions of the step."""

import math


def progress(step: int, *, steps: int, warmup: int = 0) -> float:
    """How far the decay is, 0 to 1, at `step` (counted from 0) of `steps`."""
    return min(max((step - warmup + 1) / max(steps - warmup, 1), 0.0), 1.0)


def cosine(step: int, *, steps: int, lr: float, min_lr: float, warmup: int = 0) -> float:
    """Cosine from `lr` to `min_lr`, reached at the last step and kept after it (VisualRWKV).

    During the first `warmup` steps the rate grows linearly from a tenth of what it would be without.
    """
    rate = min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * progress(step, steps=steps, warmup=warmup)))
    return rate * (0.1 + 0.9 * step / warmup) if step < warmup else rate


def geometric(step: int, *, steps: int, start: float, final: float, warmup: int = 0) -> float:
    """From `start` to `final` by equal factors: how RWKV lowers its weight decay."""
    if start <= 0 or final <= 0:
        return start
    return start * (final / start) ** progress(step, steps=steps, warmup=warmup)
