"""Micro-batches of a fixed number of samples, in the order of the run."""

from collections.abc import Iterator

from mmrnn.types import Batching, StepPlan, StepSpec


class Plain(Batching):
    """Every rank takes a contiguous share of a step, and splits it into micro-batches of one size."""

    def plans(self, position: int, spec: StepSpec) -> Iterator[StepPlan]:
        """Yield the plans of the steps from `position` on."""
        size = spec.batch_size // (spec.ranks * spec.grad_accum_steps)
        while True:
            starts = range(position, position + spec.batch_size, size)
            micro_batches = [list(range(start, start + size)) for start in starts]
            step = spec.grad_accum_steps
            yield [micro_batches[rank * step : (rank + 1) * step] for rank in range(spec.ranks)]
            position += spec.batch_size
