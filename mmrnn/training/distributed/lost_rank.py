"""Ranks that ended or hang, named where the others notice it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from mmrnn.io.errors import first_line
from mmrnn.training.distributed.world import World
from mmrnn.training.ends import StoppedRun, StopSignals
from mmrnn.training.error import TrainingError

TIMEOUT = "Timed out"
TRANSPORTS = (TIMEOUT, "gloo", "NCCL", "TCPStore", "Connection", "recvValue")
"""Words of which the messages of a failed collective have one."""


@contextmanager
def name_lost_ranks(world: World, signals: StopSignals | None = None, wait: float = 10.0) -> Iterator[None]:
    """Context of the work of a rank with the others.

    Args:
        world: the ranks.
        signals: one that ends this run ends the other ranks too.
        wait: seconds in which a rank has to answer.

    Raises:
        StoppedRun: a collective failed after a signal.
        TrainingError: one failed; the message names the ranks that do not answer.
    """
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not any(word in str(error) for word in TRANSPORTS):
            raise
        if signals is not None and signals.received:
            # Launchers send it to the ranks that are left, too, when one was lost.
            raise StoppedRun(signals.received, ", after another rank had ended") from error
        raise TrainingError(
            f"{_missing(world, str(error), wait)} ended or hangs, so that rank {world.rank} cannot continue "
            f"({first_line(error).partition('. This is')[0]}); see its own message, and resume with the same command"
        ) from error


def _missing(world: World, fault: str, wait: float) -> str:
    """Ranks that do not answer, in words. Every rank that notices the failure says so in the store of the ranks."""
    store = dist.distributed_c10d._get_default_store()
    keys = [f"mmrnn/alive/{rank}" for rank in range(world.size)]
    try:
        store.set(keys[world.rank], "1")
        if not world.main and TIMEOUT not in fault:
            # Rank 0 may wait for this one alone, and notices the failure when it ends.
            return "a rank, which rank 0 names,"
        deadline = time.monotonic() + wait
        while not store.check(keys) and time.monotonic() < deadline:
            time.sleep(0.1)
        missing = [str(rank) for rank, key in enumerate(keys) if not store.check([key])]
    except RuntimeError:
        return "rank 0, which holds the store of the ranks,"
    return f"rank {', '.join(missing)}" if missing else "a rank"
