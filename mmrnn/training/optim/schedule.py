"""Learning rate and weight decay over time."""

import math
from dataclasses import dataclass
from typing import Literal

from mmrnn.types import NonNegativeFloat, NonNegativeInt, Optimizer, Probability, Schedule


def progress(step: int, *, steps: int, warmup: int = 0) -> float:
    """Fraction of the decay that is done at `step` (from 0) of `steps`."""
    return min(max((step - warmup + 1) / max(steps - warmup, 1), 0.0), 1.0)


def cosine(step: int, *, steps: int, lr: float, min_lr: float, warmup: int = 0) -> float:
    """Cosine decay from `lr` to `min_lr`, reached at the last step and constant after it (VisualRWKV).

    The first `warmup` steps are scaled by a factor that grows linearly from 0.1 to 1.
    """
    share = 0.5 * (1 + math.cos(math.pi * progress(step, steps=steps, warmup=warmup)))
    return _warm_up(min_lr + (lr - min_lr) * share, step, warmup)


def linear(step: int, *, steps: int, lr: float, min_lr: float, warmup: int = 0) -> float:
    """Linear decay from `lr` to `min_lr`; otherwise as `cosine`."""
    share = 1 - progress(step, steps=steps, warmup=warmup)
    return _warm_up(min_lr + (lr - min_lr) * share, step, warmup)


def wsd(
    step: int,
    *,
    steps: int,
    lr: float,
    min_lr: float,
    warmup: int = 0,
    decay_ratio: float = 0.1,
    decay_type: Literal["linear", "cosine", "sqrt"] = "sqrt",
) -> float:
    """Warm-up, stable, decay: `lr` until the last `decay_ratio` of the steps, which fall to `min_lr`.

    The last step has `min_lr`, unless `decay_ratio` is 0; the steps of warm-up are as those of `cosine`. `sqrt` falls
    as 1 - sqrt(progress of the decay) (Hägele et al. 2024, arXiv:2405.18392).
    """
    decay = min(max(round(decay_ratio * steps), 1), steps - warmup) if decay_ratio else 0
    done = min(max((step + 1 - (steps - decay)) / decay, 0.0), 1.0) if decay > 0 else 0.0
    shares = {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "sqrt": 1 - math.sqrt(done)}
    return _warm_up(min_lr + (lr - min_lr) * shares[decay_type], step, warmup)


def geometric(step: int, *, steps: int, start: float, final: float, warmup: int = 0) -> float:
    """Geometric decay from `start` to `final`, as RWKV lowers its weight decay; zero at either end: constant."""
    if start <= 0 or final <= 0:
        return start
    return start * (final / start) ** progress(step, steps=steps, warmup=warmup)


def _warm_up(lr: float, step: int, warmup: int) -> float:
    return lr * (0.1 + 0.9 * step / warmup) if step < warmup else lr


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Cosine decay of the learning rate, after linear warm-up."""

    min_lr: NonNegativeFloat = 1e-5
    warmup: NonNegativeInt = 0

    def lr_at(self, step: int, *, steps: int, lr: float) -> float:
        """See `cosine`."""
        return cosine(step, steps=steps, lr=lr, min_lr=self.min_lr, warmup=self.warmup)


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Linear decay of the learning rate, after linear warm-up."""

    min_lr: NonNegativeFloat = 1e-5
    warmup: NonNegativeInt = 0

    def lr_at(self, step: int, *, steps: int, lr: float) -> float:
        """See `linear`."""
        return linear(step, steps=steps, lr=lr, min_lr=self.min_lr, warmup=self.warmup)


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Constant learning rate, after linear warm-up."""

    warmup: NonNegativeInt = 0

    def lr_at(self, step: int, *, steps: int, lr: float) -> float:
        """Return `lr`, in the steps of warm-up less."""
        return _warm_up(lr, step, self.warmup)


@dataclass(frozen=True, kw_only=True)
class WSD(Schedule):
    """Warm-up, stable, decay (MiniCPM, arXiv:2404.06395).

    Attributes:
        decay_ratio: fraction of the steps in which the rate falls.
        decay_type: `linear`, `cosine`, or `sqrt`: 1 - sqrt.
    """

    min_lr: NonNegativeFloat = 0.0
    warmup: NonNegativeInt = 0
    decay_ratio: Probability = 0.1
    decay_type: Literal["linear", "cosine", "sqrt"] = "sqrt"

    def lr_at(self, step: int, *, steps: int, lr: float) -> float:
        """See `wsd`."""
        shape = {"decay_ratio": self.decay_ratio, "decay_type": self.decay_type}
        return wsd(step, steps=steps, lr=lr, min_lr=self.min_lr, warmup=self.warmup, **shape)


def apply_schedule(optimizer: Optimizer, schedule: Schedule, step: int, *, steps: int, lr: float) -> float:
    """Set learning rate and weight decay of every parameter group for a step.

    Returns:
        The learning rate, before the factors of the groups.
    """
    now = schedule.lr_at(step, steps=steps, lr=lr)
    start, final = optimizer.weight_decay, optimizer.weight_decay_final
    decay = geometric(step, steps=steps, start=start, final=start if final is None else final, warmup=schedule.warmup)
    for group in optimizer.param_groups:
        group["lr"] = now * group["lr_mult"]
        if group["decays"]:
            group["weight_decay"] = decay
    return now
