"""Batches of a stage, resumable at any step."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import DataLoader

from mmrnn.data.sampler import ResumableBatchSampler, ShuffledOrder
from mmrnn.training.stage import Stage
from mmrnn.types import Batch, MapDataset, Sample


def load_steps(
    dataset: MapDataset,
    collate: Callable[[Sequence[Sample]], Batch | None],
    stage: Stage,
    start_step: int = 0,
    samples_before: int = 0,
    *,
    seed: int,
    workers: int = 0,
) -> Iterator[list[Batch]]:
    """Micro-batches of every step of a stage, from `start_step` on.

    Args:
        dataset: the training samples.
        collate: samples to a batch; None where no sample can be used.
        stage: says the number of steps and the size of a micro-batch.
        start_step: steps of this stage that are done.
        samples_before: samples that the stages before this one read.
        seed: of the order of the samples.
        workers: processes that prepare batches.
    """
    order = ShuffledOrder(len(dataset), seed=seed)
    loader = DataLoader(
        dataset,
        batch_sampler=ResumableBatchSampler(
            lambda n: order(samples_before + n),
            batch_size=stage.batch_size // stage.grad_accum_steps,
            steps=stage.steps * stage.grad_accum_steps,
            start_step=start_step * stage.grad_accum_steps,
        ),
        collate_fn=collate,
        num_workers=workers,
        # A generator of its own: the loader would draw from the global one, and a resumed run would differ.
        generator=torch.Generator(),
    )
    batches = iter(loader)
    while step := list(islice(batches, stage.grad_accum_steps)):
        yield [batch for batch in step if batch is not None]
