"""Contract of batching: which samples of a step go into which micro-batch of which rank."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mmrnn.types.inputs import MapDataset
from mmrnn.types.objective import Objective
from mmrnn.types.parts import Backbone

StepPlan = list[list[list[int]]]
"""Micro-batches of a step by rank, each a list of positions in the order of the run; every rank has as many."""


@dataclass(frozen=True)
class StepSpec:
    """Facts about a run on which its plans depend, beside the position.

    Attributes:
        batch_size: samples of a step, over all ranks.
        grad_accum_steps: micro-batches of a rank in a step.
        ranks: number of processes.
        epoch_size: samples of an epoch.
        seed: of the order.
        length: position in the order -> positions of its sample in a row; 0: it will be dropped. None: not known.
    """

    batch_size: int
    grad_accum_steps: int = 1
    ranks: int = 1
    epoch_size: int = 1
    seed: int = 0
    length: Callable[[int], int] | None = None


@runtime_checkable
class Batching(Protocol):
    """Distribution of the samples of a step over ranks and micro-batches.

    Attributes:
        packs: a micro-batch is one row, in which its samples lie end to end.
    """

    packs: bool = False

    @abstractmethod
    def plans(self, position: int, spec: StepSpec) -> Iterator[StepPlan]:
        """Yield the plans of the steps from a position on; that of a step depends on its position and `spec` alone.

        Args:
            position: samples that all ranks together have read; each step reads `spec.batch_size` more.
            spec: facts about the run.
        """

    def needs_lengths(self, ranks: int) -> bool:
        """Return True where the plans of so many ranks need the lengths of the samples."""
        return False

    def split(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return micro-batches of a planned one, once its samples are read; only where plans need no lengths.

        Args:
            lengths: of the samples of the planned micro-batch.

        Returns:
            Indices of the samples of each micro-batch; by default there is one.
        """
        return [list(range(len(lengths)))]

    def resolve(self, backbone: Backbone, objective: Objective, data: MapDataset, ranks: int) -> "Batching":
        """Return the batching for a run: this one, unless it depends on the parts of the run.

        Raises:
            ValueError: the backbone or the objective reads one sample a row.
        """
        return self

    def check_sizes(self, spec: StepSpec) -> None:
        """Compare the sizes of a step with each other; by default, all micro-batches must have the same size.

        Raises:
            ValueError: the samples of a step cannot be distributed.
        """
        parts = spec.ranks * spec.grad_accum_steps
        if spec.batch_size % parts:
            raise ValueError(
                f"batch_size ({spec.batch_size}) must be a multiple of ranks x grad_accum_steps ({spec.ranks} x "
                f"{spec.grad_accum_steps}); the nearest are {spec.batch_size // parts * parts or parts} and "
                f"{(spec.batch_size // parts + 1) * parts}"
            )
