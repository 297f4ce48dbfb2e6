"""Steps that would harm the weights: not finite, or with a loss far above those before."""

import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from mmrnn.config.settings import OnSpike
from mmrnn.training.error import TrainingError

WINDOW, MIN_LOSSES, SIGMAS = 200, 50, 5.0
"""Losses that a loss is compared with, the fewest of them, and the standard deviations that it may lie above them."""


class Judgement(NamedTuple):
    """Opinion on a step before its update.

    Attributes:
        skip: the weights stay as they are, and the step is tried with the next batches.
        fault: of the step; empty: none.
    """

    skip: bool = False
    fault: str = ""


class StepGuard:
    """Judges every step by its loss and the norm of its gradient, which are those of all ranks.

    Args:
        max_bad_steps: steps in a row that are skipped, with which the run ends.
        on_spike: what is done with a loss more than 5 standard deviations above the mean of the last 200.
    """

    def __init__(self, *, max_bad_steps: int = 10, on_spike: OnSpike = "warn") -> None:
        self.max_bad_steps, self.on_spike = max_bad_steps, on_spike
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._bad = 0

    def judge(self, step: int, loss: float, norm: float) -> Judgement:
        """Judge a step.

        Args:
            step: its number, for messages.
            loss: of all ranks.
            norm: of the gradient, before it is clipped.

        Raises:
            TrainingError: too many steps in a row are skipped, or a spike is to end the run.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return self._skip(
                step, f"its loss ({loss:g}) or the norm of its gradient ({norm:g}) is not finite", "or train in fp32"
            )
        fault = self._spike(loss)
        if fault and self.on_spike == "stop":
            raise TrainingError(
                f"step {step} is not made: {fault}; lower the learning rate, or resume with on_spike=skip or warn"
            )
        if fault and self.on_spike == "skip":
            return self._skip(step, fault, "or set on_spike=warn")
        self._losses.append(loss)
        self._bad = 0
        return Judgement(False, fault)

    def counters(self) -> dict[str, Any]:
        """Return what is known of the steps so far, as JSON has it."""
        return {"losses": [*self._losses]}

    def restore(self, counters: Mapping[str, Any]) -> None:
        """Go on from `counters`."""
        self._losses.extend(counters["losses"])

    def _spike(self, loss: float) -> str:
        if len(self._losses) < MIN_LOSSES:
            return ""
        mean, deviation = fmean(self._losses), pstdev(self._losses)
        if loss <= mean + SIGMAS * deviation:
            return ""
        return (
            f"its loss ({loss:g}) is more than {SIGMAS:g} standard deviations ({deviation:.3g}) above the mean of the "
            f"last {len(self._losses)} ({mean:g})"
        )

    def _skip(self, step: int, fault: str, cure: str) -> Judgement:
        self._bad += 1
        if self._bad == self.max_bad_steps:
            raise TrainingError(f"step {step} failed {self._bad} times: {fault}; lower the learning rate {cure}")
        return Judgement(True, fault)
