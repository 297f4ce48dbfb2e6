"""Processes of a run, and what they tell each other."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mmrnn.training.distributed.launchers import Launch, read_launch

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Processes of a run. Alone, a process has no process group, and every collective returns what it is given.

    All ranks must call a collective, in the same order. Numbers and objects travel between CPUs.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        device: of this process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def main(self) -> bool:
        """True in the process that writes the folder of the run."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all ranks, in double precision."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the maxima over all ranks, in double precision."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Return True where the flag of some rank is set."""
        return bool(self.max([float(flag)])[0])

    def broadcast(self, value: T | None) -> T:
        """Return the value of rank 0."""
        values: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum([0.0])

    def _reduce(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.size == 1 or not values:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()


@contextmanager
def start_world(
    device: str | None = None, *, timeout: float = 1800.0, environment: Mapping[str, str] = os.environ
) -> Iterator[World]:
    """Context of the processes that a launcher has started; without one, of this process alone.

    Args:
        device: `cpu`, `cuda`, ...; None: a GPU where there is one. Each process takes the GPU of its local rank.
        timeout: seconds after which a collective fails that not all ranks have joined.
        environment: variables of the launcher (torchrun, or Slurm's srun).

    Raises:
        ValueError: the variables of the launcher contradict each other, or a process has no GPU of its own.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    launch = read_launch(environment)
    if launch is None:
        yield World(device=torch.device(kind))
        return
    own = _own_device(kind, launch)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if own.type == "cuda" else "cpu:gloo",
        init_method=f"tcp://{launch.address}:{launch.port}" if launch.address else "env://",
        rank=launch.rank,
        world_size=launch.size,
        timeout=timedelta(seconds=timeout),
    )
    try:
        yield World(launch.rank, launch.size, own)
    finally:
        dist.destroy_process_group()


def _own_device(kind: str, launch: Launch) -> torch.device:
    """Device of a process; the current one of torch as well."""
    if torch.device(kind).type != "cuda":
        return torch.device(kind)
    if launch.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"rank {launch.rank} is number {launch.local_rank} on its machine, which has {torch.cuda.device_count()} "
            "GPUs; start as many processes as there are GPUs, or set device=cpu"
        )
    torch.cuda.set_device(launch.local_rank)
    return torch.device("cuda", launch.local_rank)
