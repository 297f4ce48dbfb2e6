"""Micro-batches of samples of similar lengths."""

from collections.abc import Iterator
from hashlib import sha256
from random import Random

from mmrnn.types import Batching, PositiveInt, StepPlan, StepSpec


class Bucketed(Batching):
    """Samples of a window of steps sorted by length and cut into steps, which are read in random order.

    A window never reaches beyond the steps that begin in its epoch: every sample is read once an epoch, as without
    sorting. The micro-batches of a step go to the ranks in turn, forwards and backwards, so that all have about as
    many tokens. A stage that begins within a window of an earlier one with another `batch_size` sorts it anew: of that
    window it may read samples twice, or not at all.

    Args:
        window: steps that are sorted together.
    """

    def __init__(self, *, window: PositiveInt = 64) -> None:
        if window < 1:
            raise ValueError(f"window ({window}) must be at least 1")
        self.window = window

    def needs_lengths(self, ranks: int) -> bool:
        """Return True: samples are sorted before they are read."""
        return True

    def plans(self, position: int, spec: StepSpec) -> Iterator[StepPlan]:
        """Yield the plans of the steps from `position` on."""
        while True:
            start, steps = self._window(position, spec)
            done = (position - start) // spec.batch_size
            yield from (_deal(step, spec) for step in steps[done:])
            position = start + len(steps) * spec.batch_size

    def _window(self, position: int, spec: StepSpec) -> tuple[int, list[list[int]]]:
        """First position of the window that holds a step, and the positions of all of its steps, in their order."""
        size, epoch = spec.batch_size, position // spec.epoch_size
        # Stages before this one may have had steps of another size.
        offset = position % size
        first, last = (
            offset + max(-(-(bound - offset) // size), 0) * size
            for bound in (epoch * spec.epoch_size, (epoch + 1) * spec.epoch_size)
        )
        number = (position - first) // (self.window * size)
        start = first + number * self.window * size
        stop = min(start + self.window * size, last)
        ordered = sorted(range(start, stop), key=spec.length)
        steps = [ordered[n : n + size] for n in range(0, len(ordered), size)]
        digest = sha256(f"window {spec.seed} {start}".encode()).digest()
        Random(digest).shuffle(steps)
        return start, steps


def _deal(step: list[int], spec: StepSpec) -> StepPlan:
    """Micro-batches of a step, whose samples are sorted, by rank."""
    size = len(step) // (spec.ranks * spec.grad_accum_steps)
    micro_batches = [step[start : start + size] for start in range(0, len(step), size)]
    plan: StepPlan = [[] for _ in range(spec.ranks)]
    for number, micro_batch in enumerate(micro_batches):
        turn, place = divmod(number, spec.ranks)
        plan[spec.ranks - 1 - place if turn % 2 else place].append(micro_batch)
    return plan
