"""Steps that would harm the weights: not finite, or with a loss far above those before."""

import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from mmrnn.config.settings import OnSpike

WINDOW, MIN_LOSSES, SIGMAS = 200, 50, 5.0
"""Losses that a loss is compared with, the fewest of them, and the standard deviations that it may lie above them."""


class GuardDecision(NamedTuple):
    """Decision on a step before its update.

    Attributes:
        skip: the weights stay as they are, and the step is tried with the next batches.
        fault: of the step; empty: none.
        end: why the run ends, and the way out; empty: it continues.
    """

    skip: bool = False
    fault: str = ""
    end: str = ""


class StepGuard:
    """Decides on every step by its loss and the norm of its gradient, which are those of all ranks.

    Args:
        max_bad_steps: steps in a row that are skipped, with which the run ends.
        on_spike: what is done with a loss more than 5 standard deviations above the mean of the last 200.
    """

    def __init__(self, *, max_bad_steps: int = 10, on_spike: OnSpike = "warn") -> None:
        self.max_bad_steps, self.on_spike = max_bad_steps, on_spike
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._bad = 0

    def check(self, step: int, loss: float, norm: float, lr: float) -> GuardDecision:
        """Decide on a step.

        Args:
            step: its number, for messages.
            loss: of all ranks.
            norm: of the gradient, before it is clipped.
            lr: highest learning rate of the stage, for messages.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            fault = f"its loss ({loss:g}) or the norm of its gradient ({norm:g}) is not finite"
            return self._skip(step, fault, f"lower the learning rate ({lr:g}) or train in fp32")
        fault = self._spike(loss)
        if fault and self.on_spike == "stop":
            cure = f"lower the learning rate ({lr:g}), or resume with on_spike=skip or warn"
            return GuardDecision(True, fault, f"step {step} is not made: {fault}; {cure}")
        if fault and self.on_spike == "skip":
            return self._skip(step, fault, f"lower the learning rate ({lr:g}) or set on_spike=warn")
        self._losses.append(loss)
        self._bad = 0
        return GuardDecision(False, fault)

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the steps so far, as JSON has it."""
        return {"losses": [*self._losses]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self._losses.extend(state["losses"])

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

    def _skip(self, step: int, fault: str, cure: str) -> GuardDecision:
        self._bad += 1
        end = f"step {step} failed {self._bad} times: {fault}; {cure}" if self._bad >= self.max_bad_steps else ""
        return GuardDecision(True, fault, end)
