"""Processes of a run, and their collectives."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mmrnn.config.device import KINDS, accelerator, choose_device, device_count, device_module
from mmrnn.config.error import ConfigError
from mmrnn.training.distributed.launchers import read_launch

T = TypeVar("T")


class RankError(RuntimeError):
    """Failure of another process, which reports it itself.

    Attributes:
        code: exit code of that process: 2 for a mistake in the configuration, else 1.
    """

    def __init__(self, rank: int, text: str, code: int) -> None:
        super().__init__(f"rank {rank} failed: {text}")
        self.code = code


class Fault(NamedTuple):
    """Failure of a process, as it is sent to the others."""

    text: str
    code: int

    @classmethod
    def of(cls, error: BaseException) -> "Fault":
        """Describe an exception."""
        return cls(f"{type(error).__name__}: {error}", 2 if isinstance(error, ConfigError) else 1)


@dataclass(frozen=True)
class World:
    """Processes of a run. Alone, a process has no process group, and every collective returns what it is given.

    All ranks must call a collective, in the same order. Numbers and objects travel between CPUs.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """True in the process that writes the folder of the run."""
        return self.rank == 0

    def sum(self, values: Sequence[float | int]) -> list[float]:
        """Return the sums over all ranks, in double precision."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, values: Sequence[float | int]) -> list[float]:
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

    def share_slices(self, tensor: Tensor, bounds: Sequence[int]) -> None:
        """Fill a tensor of the CPU in place on all ranks, rank i having computed `tensor[bounds[i]:bounds[i + 1]]`."""
        for rank in range(self.size if self.size > 1 else 0):
            if bounds[rank] < bounds[rank + 1]:
                dist.broadcast(tensor[bounds[rank] : bounds[rank + 1]], src=rank)

    def on_main(self, call: Callable[[], T]) -> T:
        """Call a function on rank 0 alone, and return its result on all ranks.

        Raises:
            RankError: on the other ranks, where the call failed.
        """
        result: T | None = None
        with self.all_or_none():
            if self.main:
                result = call()
        return self.broadcast(result)

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Context of work that every rank does, such as a check, and that fails on all ranks if it fails on one.

        Of several ranks with the same failure the first one raises it.

        Raises:
            RankError: on the other ranks.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        faults = self.gather(None if failure is None else Fault.of(failure))
        first = next((rank for rank, fault in enumerate(faults) if fault), None)
        if first is None:
            return
        if failure is not None and faults.index(faults[self.rank]) == self.rank:
            raise failure
        raise RankError(first, *faults[first])

    def device(self, kind: str | None) -> torch.device:
        """Return the device of this process: of several GPUs that of its local rank.

        Args:
            kind: as `choose_device` takes it.

        Raises:
            ConfigError: the machine has no such device, or fewer of them than processes.
        """
        device = choose_device(kind)
        if self.size == 1 or device.type == "cpu":
            return device
        if not KINDS[device.type].distributed:
            raise ConfigError(f"device={device}: several processes cannot share it; start one, or set device=cpu")
        gpus = device_count(device.type)
        if self.local_rank >= gpus:
            raise ConfigError(
                f"rank {self.rank} is number {self.local_rank} on its machine, which has {gpus} GPUs; start as many "
                "processes as there are GPUs, or set device=cpu"
            )
        device_module(device).set_device(self.local_rank)
        return torch.device(device.type, self.local_rank)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum([0.0])

    def _reduce(self, values: Sequence[float | int], operation: Any) -> list[float]:
        if self.size == 1 or not values:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)
        return tensor.tolist()


@contextmanager
def start_world(*, timeout: float = 1800.0, environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Context of the processes that a launcher has started; without one, of this process alone.

    Inside such a context another one is the same processes.

    Args:
        timeout: seconds after which a collective fails that not all ranks have joined.
        environment: variables of the launcher (torchrun, or Slurm's srun).

    Raises:
        ConfigError: the variables of the launcher contradict each other.
    """
    launch = read_launch(environment)
    if launch is None:
        yield World()
        return
    world = World(launch.rank, launch.size, launch.local_rank)
    if dist.is_initialized():
        yield world
        return
    kind = accelerator()
    dist.init_process_group(
        f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}" if kind else "gloo",
        init_method=f"tcp://{launch.address}:{launch.port}" if launch.address else "env://",
        rank=launch.rank,
        world_size=launch.size,
        timeout=timedelta(seconds=timeout),
    )
    yield world
    # Not where an error was raised: the group cannot be left while other processes wait in it. See `cli.main.run`.
    dist.destroy_process_group()
