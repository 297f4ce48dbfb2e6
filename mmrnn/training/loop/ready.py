"""Micro-batches of the next step, and their shares of its loss."""

from typing import NamedTuple

from mmrnn.data.left_out import LeftOut
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.reading.loader import StepLoader
from mmrnn.training.reading.sample_reader import SkippedSample
from mmrnn.training.reading.skipped import SkippedSamples
from mmrnn.training.step import Share, shares, unit_counts
from mmrnn.types import Batch, Objective


class Ready(NamedTuple):
    """Micro-batches of a step, for one process.

    Attributes:
        micro_batches: None: all samples of one were dropped.
        shares: of the micro-batches.
        ids: of the samples in them.
        dropped: samples that were read and are not in them.
    """

    micro_batches: list[Batch | None]
    shares: list[Share]
    ids: list[str]
    dropped: list[SkippedSample]


def next_usable(loader: StepLoader, objective: Objective, world: World, skipped: SkippedSamples | None = None) -> Ready:
    """Read steps until some process has a sample that the objective finds something to learn in.

    Args:
        loader: of this process.
        objective: the loss.
        world: the processes.
        skipped: takes what is dropped; None: nobody does.

    Raises:
        TrainingError: a whole epoch has none, or too many samples are dropped.
    """
    dropped, began = [], loader.samples
    while True:
        step = next(loader)
        dropped += step.dropped
        if skipped is not None:
            skipped.add(step.dropped, loader.samples)
        counts = [unit_counts(objective, batch) for batch in step.micro_batches]
        totals = world.sum([sum(column) for column in zip(*counts, strict=True)])
        if any(totals):
            break
        if skipped is not None:
            skipped.flush(loader.samples)
        # An epoch from its beginning to its end.
        if loader.samples // loader.epoch_size > -(-began // loader.epoch_size):
            found = LeftOut.of((one.id, one.reason) for several in world.gather(dropped) for one in several)
            raise TrainingError(f"there is nothing to train on, all {loader.epoch_size} samples are dropped: {found}")
    found = shares(counts, totals, world.size)
    if world.size > 1:
        return Ready(step.micro_batches, found, step.ids, dropped)
    used = [index for index, batch in enumerate(step.micro_batches) if batch is not None]
    return Ready([step.micro_batches[index] for index in used], [found[index] for index in used], step.ids, dropped)
