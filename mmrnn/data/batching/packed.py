"""Micro-batches of one row each, in which samples lie end to end: no padding."""

from collections.abc import Iterator, Sequence
from heapq import heapify, heapreplace

from mmrnn.types import Backbone, Batching, MapDataset, Objective, PositiveInt, StepPlan, StepSpec


class Packed(Batching):
    """Rows of at most `tokens` positions, as few as the samples of a step need, with about as many tokens on each rank.

    Longest first, every sample goes to the rank with the fewest tokens, and there to its shortest row. All ranks have
    as many rows. Their number follows from the tokens: `grad_accum_steps` of the stage is not read. A single process
    reads the samples of a step before it puts them into rows, and need not know their lengths.

    Args:
        tokens: most positions of a row, and so of a micro-batch; a longer sample has a row of its own.
    """

    packs = True

    def __init__(self, *, tokens: PositiveInt = 16384) -> None:
        if tokens < 1:
            raise ValueError(f"tokens ({tokens}) must be at least 1")
        self.tokens = tokens

    def resolve(self, backbone: Backbone, objective: Objective, data: MapDataset, ranks: int) -> Batching:
        """Return this batching.

        Raises:
            ValueError: the backbone or the objective reads one sample a row.
        """
        if fault := one_sample_a_row(backbone, objective):
            raise ValueError(f"batching: {fault}, and cannot be trained on packed ones; use batching=bucketed")
        return self

    def check_sizes(self, spec: StepSpec) -> None:
        """Accept any number of samples: rows hold different numbers of them anyway."""

    def needs_lengths(self, ranks: int) -> bool:
        """Return True for several ranks: each must know the rows of the others."""
        return ranks > 1

    def plans(self, position: int, spec: StepSpec) -> Iterator[StepPlan]:
        """Yield the plans of the steps from `position` on; without lengths, with all samples in one micro-batch."""
        while True:
            step = list(range(position, position + spec.batch_size))
            if spec.length is None:
                yield [[step]]
            else:
                rows = self._rows([spec.length(n) for n in step], spec.ranks)
                yield [[[step[index] for index in row] for row in share] for share in rows]
            position += spec.batch_size

    def split(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the rows of samples of some lengths."""
        return self._rows(lengths, 1)[0] if lengths else [[]]

    def _rows(self, lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
        """Rows of every rank, as many on each; the samples of a row are in the order of the run."""
        longest_first = sorted(range(len(lengths)), key=lambda n: -lengths[n])
        shares = _balance(longest_first, lengths, ranks)
        totals = [sum(lengths[n] for n in share) for share in shares]
        rows = max(1, -(-max(totals) // self.tokens))
        while True:
            plan = [_balance(share, lengths, rows) for share in shares]
            if all(len(row) < 2 or sum(lengths[n] for n in row) <= self.tokens for share in plan for row in share):
                return [[sorted(row) for row in share] for share in plan]
            rows += max(1, rows // 32)  # a step may need thousands


def one_sample_a_row(backbone: Backbone, objective: Objective) -> str:
    """Return the reason why a model cannot be trained on packed rows; empty: it can."""
    if not backbone.recurrent and backbone.axes == 0:
        return f"{type(backbone).__name__} reads one sample a row"
    for _, term in objective.terms():
        if term.compares_samples:
            return f"{type(term).__name__} compares rows of one sample"
    return ""


def _balance(items: Sequence[int], weights: Sequence[int], bins: int) -> list[list[int]]:
    """Put every item, heaviest first, into the lightest of some bins; of two equal ones into the emptier."""
    filled: list[list[int]] = [[] for _ in range(bins)]
    order = [(0, 0, number) for number in range(bins)]
    heapify(order)
    for item in items:
        total, count, number = order[0]
        filled[number].append(item)
        heapreplace(order, (total + weights[item], count + 1, number))
    return filled
