"""Batches of a stage, resumable at any step."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader

from mmrnn.data.collate import Collator
from mmrnn.data.left_out import LeftOut
from mmrnn.data.sampler import ResumableBatchSampler, ShuffledOrder
from mmrnn.training.error import TrainingError
from mmrnn.training.stage import Stage
from mmrnn.types import Batch, MapDataset, Objective, Sample

NO_UNITS = "the objective finds nothing to learn in the whole micro-batch"


class Collated(NamedTuple):
    """Samples of one micro-batch, collated.

    Attributes:
        batch: None where all samples are dropped.
        ids: of the samples that are left.
        dropped: id of each dropped sample, and reason.
    """

    batch: Batch | None
    ids: list[str]
    dropped: list[tuple[str, str]]


class StepLoader(Iterator[list[Batch]]):
    """Micro-batches of every step of a stage, without end.

    A micro-batch that is empty after its samples were dropped is replaced by the next one, so that every step has all
    of its micro-batches. The position is therefore counted in samples, not in steps.

    Args:
        dataset: the training samples.
        collate: samples to a batch.
        objective: a micro-batch without any of its units counts as empty.
        stage: says the size of a micro-batch and their number in a step.
        samples: number of samples that the run has read.
        seed: of the order of the samples.
        workers: processes that prepare batches.
        pin_memory: copy batches to page-locked memory, from which a GPU reads asynchronously.

    Attributes:
        samples: number of samples that the run has read, those of the last step included.
        dropped: samples that were dropped; whoever reports them replaces it.
    """

    def __init__(
        self,
        dataset: MapDataset,
        collate: Collator,
        objective: Objective,
        stage: Stage,
        samples: int = 0,
        *,
        seed: int,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.size, self.objective = len(dataset), objective
        self.micro_batches, self.micro_batch_size = (
            stage.grad_accum_steps,
            stage.batch_size // stage.grad_accum_steps,
        )
        self.samples, self.dropped = samples, LeftOut()
        order = ShuffledOrder(self.size, seed=seed)
        self._batches = iter(
            DataLoader(
                dataset,
                batch_sampler=ResumableBatchSampler(
                    lambda n: order(samples + n), batch_size=self.micro_batch_size, steps=None
                ),
                collate_fn=_CollateAndCount(collate),
                num_workers=workers,
                pin_memory=pin_memory,
                # A generator of its own: the loader would draw from the global one, and a resumed run would differ.
                generator=torch.Generator(),
            )
        )

    def __next__(self) -> list[Batch]:
        """Return the micro-batches of the next step.

        Raises:
            TrainingError: a whole epoch has no sample that can be trained on.
        """
        step: list[Batch] = []
        empty, began = LeftOut(), self.samples
        while len(step) < self.micro_batches:
            collated = next(self._batches)
            self.samples += self.micro_batch_size
            faults = collated.dropped
            usable = collated.batch is not None and self._has_units(collated.batch)
            if collated.batch is not None and not usable:
                faults = [*faults, *((id, NO_UNITS) for id in collated.ids)]
            for id, reason in faults:
                self.dropped.add(reason, id)
                empty.add(reason, id)
            if usable:
                step.append(collated.batch)
                empty, began = LeftOut(), self.samples
            elif self.samples // self.size > -(-began // self.size):
                raise TrainingError(f"there is nothing to train on, all {self.size} samples are dropped: {empty}")
        return step

    def _has_units(self, batch: Batch) -> bool:
        return any(term.num_units(batch) for _, term in self.objective.terms())


class _CollateAndCount:
    """Collation that returns, with each batch, what it dropped: the list of a worker's collator stays in the worker."""

    def __init__(self, collate: Collator) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[Sample]) -> Collated:
        self.collate.dropped.clear()
        batch = self.collate(samples)
        dropped = list(self.collate.dropped)
        left = [sample.id for sample in samples]
        for id, _ in dropped:
            left.remove(id)
        return Collated(batch, left, dropped)
