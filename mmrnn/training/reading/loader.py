"""Micro-batches of every step of a stage, resumable at any step."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmrnn.data.batching import Plain
from mmrnn.data.collate import Collator
from mmrnn.data.sampler import Order, ShuffledOrder
from mmrnn.data.worker_loader import start_loader
from mmrnn.training.error import TrainingError
from mmrnn.training.reading.sample_reader import Collated, Key, Keys, SampleReader, SkippedSample
from mmrnn.training.stage import Stage
from mmrnn.types import Batch, Batching, MapDataset, Objective, StepSpec

NO_UNITS = "the objective finds nothing to learn in the whole micro-batch"


@dataclass(frozen=True)
class StepBatches:
    """One rank's share of a step.

    Attributes:
        micro_batches: as many on all ranks; None where all samples are dropped, or the rank has none.
        ids: of the samples in them.
        dropped: samples that were read and are not in them.
    """

    micro_batches: list[Batch | None]
    ids: list[str]
    dropped: list[SkippedSample]

    @property
    def batches(self) -> list[Batch]:
        """Micro-batches that have samples."""
        return [batch for batch in self.micro_batches if batch is not None]


class StepLoader(Iterator[StepBatches]):
    """One rank's share of every step of a stage, without end.

    What is read at a step depends on the seed and the position alone, and so does the state of the random generators
    (`random`, NumPy, torch on the CPU) with which a sample is read and prepared: a resumed run reads what the
    uninterrupted one would have read, with any number of worker processes.

    Args:
        dataset: the training samples.
        collate: samples to a batch.
        objective: a micro-batch without any of its units counts as empty.
        stage: says the size of a step and the number of its micro-batches.
        batching: distributes the samples of a step; None: in their order.
        samples: number of samples that all ranks together have read.
        seed: of the order of the samples.
        rank: of this process.
        size: number of processes.
        workers: processes that prepare batches.
        pin_memory: copy batches to page-locked memory, from which a GPU reads asynchronously.
        timeout: seconds to wait for a micro-batch of the workers; 0: without end.
        lengths: positions of every sample of the data set in a row, for a batching that needs them.

    Attributes:
        samples: number of samples that all ranks together have read, those of the last step included.
        epoch_size: number of samples.

    Raises:
        ValueError: the samples of a step cannot be distributed.
    """

    def __init__(
        self,
        dataset: MapDataset,
        collate: Collator,
        objective: Objective,
        stage: Stage,
        batching: Batching | None = None,
        samples: int = 0,
        *,
        seed: int,
        rank: int = 0,
        size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 0.0,
        lengths: np.ndarray | Sequence[int] | None = None,
    ) -> None:
        self.epoch_size, self.samples, self.objective = len(dataset), samples, objective
        self.batch_size, self.rank, self.timeout = stage.batch_size, rank, timeout
        order = dataset.order(seed) or ShuffledOrder(self.epoch_size, seed=seed)
        length = None if lengths is None else (lambda n: int(lengths[order(n)]))
        spec = StepSpec(stage.batch_size, stage.grad_accum_steps, size, self.epoch_size, seed, length)
        batching = batching or Plain()
        batching.check_sizes(spec)
        if length is None and batching.needs_lengths(size):
            raise ValueError(f"{type(batching).__name__} needs the lengths of the samples; see `sample_lengths`")
        self._plans = _RankPlans(batching, spec, order, rank, samples)
        self._batches = start_loader(
            Keys(),
            workers=workers,
            batch_sampler=self._plans,
            collate_fn=SampleReader(dataset, collate, seed, rank, batching.split if length is None else None),
            pin_memory=pin_memory,
            timeout=timeout if workers else 0,
        )

    def __next__(self) -> StepBatches:
        """Return this rank's share of the next step; every micro-batch of it may be None.

        Raises:
            TrainingError: the workers are silent for `timeout` seconds, or one of them was killed.
        """
        found = self._take()
        for _ in range(self._plans.sizes.popleft() - 1):
            found += self._take()
        self.samples += self.batch_size
        step = StepBatches([], [], [])
        for collated in found:
            step.dropped.extend(collated.dropped)
            usable = collated.batch is not None and self._has_units(collated.batch)
            step.micro_batches.append(collated.batch if usable else None)
            if usable:
                step.ids.extend(collated.ids)
            else:
                left = zip(collated.positions, collated.ids, strict=True)
                step.dropped.extend(
                    SkippedSample(position, id, NO_UNITS, NO_UNITS, self.rank, collated.worker) for position, id in left
                )
        return step

    def _take(self) -> list[Collated]:
        """The micro-batches of a planned one."""
        try:
            collated = next(self._batches)
        except RuntimeError as error:
            # The only errors of torch's loader itself; those of a worker have their own types.
            if "timed out after" in str(error):
                fault = f"the loader was silent for {self.timeout:g} s"
            elif "exited unexpectedly" in str(error):
                fault = f"a worker process of the loader ended ({error})"
            else:
                raise
            positions, indices = zip(*self._plans.issued[0], strict=True) if self._plans.issued[0] else ((), ())
            raise TrainingError(
                f"{fault}; rank {self.rank} waits for the samples {_listed(indices)} of the data set (positions "
                f"{_listed(positions)} of the run); look at their files, or raise loader_timeout"
            ) from error
        self._plans.issued.popleft()
        return collated

    def _has_units(self, batch: Batch) -> bool:
        return any(term.num_units(batch) for _, term in self.objective.terms())


class _RankPlans:
    """Micro-batches of one rank, as keys of their samples.

    Attributes:
        sizes: number of micro-batches of each step that was begun and not returned.
        issued: keys of each micro-batch that was not returned.
    """

    def __init__(self, batching: Batching, spec: StepSpec, order: Order, rank: int, position: int) -> None:
        self.batching, self.spec, self.order, self.rank, self.position = batching, spec, order, rank, position
        self.sizes: deque[int] = deque()
        self.issued: deque[list[Key]] = deque()

    def __iter__(self) -> Iterator[list[Key]]:
        for plan in self.batching.plans(self.position, self.spec):
            self.sizes.append(len(plan[self.rank]))
            for micro_batch in plan[self.rank]:
                self.issued.append([(n, self.order(n)) for n in micro_batch])
                yield self.issued[-1]


def _listed(numbers: Sequence[int], most: int = 16) -> str:
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more
