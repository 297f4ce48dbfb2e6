"""Writing of checkpoints beside the training: one at a time, in a thread of its own."""

import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

from mmrnn.io.disk import DiskFullError, explain_full_disk
from mmrnn.training.distributed.world import World

T = TypeVar("T")


class CheckpointWriter:
    """Writes tensors of all ranks into a folder, while they are changed by further training.

    Its methods are collectives: all ranks call them in the same order.

    Attributes:
        group: of all ranks, for its collectives, which run beside those of the training; None: one process.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.group = dist.new_group(backend="gloo") if world.size > 1 else None
        self._pending: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """True while this rank writes."""
        return self._pending is not None and not self._pending.done()

    def start(self, folder: Path, tensors: Mapping[str, Tensor], commit: Callable[[], None]) -> "Future[None]":
        """Copy the tensors, and begin to write them; `wait` must have been called since the last time.

        Args:
            folder: new or empty.
            tensors: by name; each rank passes its part.
            commit: called on rank 0 when all ranks have written; what it raises is raised by `wait` on every rank.

        Returns:
            Its end, as `wait` reports it. A folder that could not be written is removed.
        """
        stager = DefaultStager(StagingOptions(False, False, False, False))
        copies = stager.stage(dict(tensors))
        stager.close()
        self._pending = Future()
        # A daemon: where a run fails, its end does not wait for ranks that no longer answer.
        threading.Thread(target=self._run, args=(self._pending, folder, copies, commit), daemon=True).start()
        return self._pending

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for what was begun last.

        Args:
            timeout: seconds; None: as long as it takes.

        Returns:
            True where something was written since the last time.

        Raises:
            DiskFullError: there was no space for it.
            OSError, RuntimeError: it could not be written.
            TimeoutError: it is not ready in time.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result(timeout)
        return pending is not None

    def _run(
        self, future: "Future[None]", folder: Path, tensors: Mapping[str, Tensor], commit: Callable[[], None]
    ) -> None:
        try:
            self._write(folder, tensors, commit)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    def _write(self, folder: Path, tensors: Mapping[str, Tensor], commit: Callable[[], None]) -> None:
        failure: Exception | None = None
        # Each rank counts what it holds; replicated tensors are written once, so that this is an upper bound.
        needed = sum(_local(value).nbytes for value in tensors.values())
        try:
            with explain_full_disk(folder, needed):
                self._save(folder, tensors)
                if self.world.main:
                    commit()
        except Exception as error:
            failure = error
        found = self._all(None if failure is None else (isinstance(failure, DiskFullError), str(failure)))
        if not any(found):
            return
        if self.world.main:
            shutil.rmtree(folder, ignore_errors=True)
        if failure is None:
            is_full, text = next(filter(None, found))
            failure = DiskFullError(text) if is_full else RuntimeError(text)
        raise failure

    def _all(self, value: T) -> list[T]:
        """Values of all ranks."""
        if self.group is None:
            return [value]
        found: list[Any] = [None] * self.world.size
        dist.all_gather_object(found, value, self.group)
        return found

    def _save(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        try:
            writer = dcp.FileSystemWriter(folder)
            dcp.save(dict(tensors), storage_writer=writer, process_group=self.group, no_dist=self.group is None)
        except CheckpointException as error:
            for cause, _ in error.failures.values():
                raise cause from None
            raise


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
