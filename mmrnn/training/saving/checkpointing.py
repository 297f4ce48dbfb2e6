"""Policy of checkpoints: when they are saved, which are kept, and from which one a run resumes."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mmrnn.config.settings import Settings
from mmrnn.io.atomic import replace_file
from mmrnn.io.disk import DiskFullError
from mmrnn.training.distributed.checkpoint import TrainingState
from mmrnn.training.distributed.checkpoint_writer import CheckpointWriter
from mmrnn.training.distributed.random_state import random_state
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.saving import checkpoint_folder as folders
from mmrnn.training.saving.saved_run import STATE, Progress, SavedRun

MAX_FULL_DISKS = 3
"""Checkpoints in a row for which there is no space, with which a run ends."""

LAST_WAIT = 60.0
"""Seconds that a failing run waits for the checkpoint that is being written."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """Knobs of the policy.

    Attributes:
        save_every_seconds: at least so long between two checkpoints.
        max_save_share: of the duration of the run, for which training may stand still to save; 1: no limit.
        keep_last: number of checkpoints that are kept.
        keep_every: steps between checkpoints that are kept for good, and load like any model; 0: none.
    """

    save_every_seconds: float = Settings.save_every_seconds
    max_save_share: float = Settings.max_save_share
    keep_last: int = Settings.keep_last
    keep_every: int = Settings.keep_every


class Checkpoints:
    """Checkpoints of a run, saved while it is trained; a context that waits for the last one.

    All ranks call its methods in the same order; `due` answers on rank 0 for all.

    Args:
        out: folder of the run.
        world: its processes.
        config: of the run.
        settings: knobs.
        say: prints a line.
        export: writes the model alone into the folder of a checkpoint that is kept for good.
        clock: seconds.
    """

    def __init__(
        self,
        out: Path,
        world: World,
        config: Mapping[str, Any],
        settings: CheckpointSettings,
        *,
        say: Callable[[str], None],
        export: Callable[[Path], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.out, self.world, self.config, self.settings = out, world, config, settings
        self.say, self.export, self.clock = say, export, clock
        self.writer = CheckpointWriter(world)
        self._began = self._saved_at = clock()
        self._spent = self._last = 0.0
        self._saved_step: int | None = None
        self._full = 0

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        else:
            # What is being written is worth having, but must not hide why the run failed.
            with suppress(Exception):
                self.writer.wait(LAST_WAIT)

    def resumed(self, step: int) -> None:
        """Note that the run was resumed from its checkpoint after so many steps."""
        self._saved_step = step

    def due(self, step: int) -> bool:
        """True on rank 0 where a checkpoint should be saved after so many steps of the run.

        Between two of them lie `save_every_seconds`, and as much time as makes the next one, if it takes as long as the
        last, no more than `max_save_share` of the run.
        """
        if not self.world.main:
            return False
        if self._is_kept(step):
            return True
        now, share = self.clock(), self.settings.max_save_share
        if self.writer.is_busy or now - self._saved_at < self.settings.save_every_seconds:
            return False
        return share >= 1 or self._spent + self._last <= share * (now - self._began)

    def save(
        self,
        step: int,
        progress: Progress,
        state: TrainingState,
        counters: Mapping[str, Any],
        *,
        wait: bool = False,
        full: DiskFullError | None = None,
    ) -> None:
        """Save a checkpoint after so many steps of the run; it is written while training continues.

        One that is being written is waited for. Where there is no space, a line says so, and training continues.

        Args:
            step: number of steps that the run has taken, over all stages.
            progress: position in the run.
            state: tensors of the run.
            counters: of the training loop, as JSON has them.
            wait: return when it is written.
            full: on rank 0, why the lists of the run lack records, which a run resumed from here would not write; None:
                they lack none.

        Raises:
            TrainingError: a trained parameter or the state of the optimizer is not finite; earlier ones stay.
            DiskFullError: there was no space for several in a row.
        """
        began = self.clock()
        self._finish()
        if (full := self.world.broadcast(full)) is not None:
            self._say_full(full)
            self._count_full(full)
        elif step != self._saved_step:
            self._start(step, progress, state, counters)
        if wait:
            self._finish()
        self._saved_at = self.clock()
        self._last = self._saved_at - began
        self._spent += self._last

    def _start(self, step: int, progress: Progress, state: TrainingState, counters: Mapping[str, Any]) -> None:
        if self.world.any(not state.is_finite()):
            raise TrainingError(
                f"weights or the state of the optimizer are not finite after step {step}; lower the learning rate "
                "or train in fp32; the checkpoint of an earlier step is kept"
            )
        random = tuple(self.world.gather(random_state()))
        saved = SavedRun(
            progress=progress, config=self.config, numbers=state.numbers(), random=random, counters=dict(counters)
        )
        # What the counters refer to changes while the checkpoint is written.
        text = saved.to_text()
        folder, kept = folders.step_folder(self.out, step), self._is_kept(step)
        if self.world.main:
            folder.mkdir(parents=True, exist_ok=True)
        self.world.barrier()
        if kept and not self._export(folder):
            return

        def commit() -> None:
            replace_file(folder / STATE, lambda path: path.write_text(text), len(text))
            folders.mark_complete(folder, kept=kept)
            with suppress(OSError):
                folders.remove_old(self.out, self.settings.keep_last)

        self.writer.start(folder, state.tensors(), commit).add_done_callback(self._report)
        self._saved_step = step

    def _export(self, folder: Path) -> bool:
        """Write the model alone; False where there is no space for it."""
        full: DiskFullError | None = None
        try:
            self.export(folder)
        except DiskFullError as error:
            full = error
        if not self.world.any(full is not None):
            return True
        if self.world.main:
            folders.remove(folder)
        self._say_full(full)
        self._count_full(full or DiskFullError("no space left on the disk of rank 0"))
        return False

    def _finish(self) -> None:
        """Wait for the checkpoint that is being written."""
        try:
            if self.writer.wait():
                self._full = 0
        except DiskFullError as error:
            self._saved_step = None
            self._count_full(error)

    def _count_full(self, error: DiskFullError) -> None:
        self._full += 1
        if self._full == MAX_FULL_DISKS:
            raise error

    def _report(self, future: "Future[None]") -> None:
        error = future.exception()
        if isinstance(error, DiskFullError):
            self._say_full(error)

    def _say_full(self, error: DiskFullError | None) -> None:
        if self.world.main:
            self.say(f"no checkpoint is saved, and training continues: {error}")

    def _is_kept(self, step: int) -> bool:
        return bool(self.settings.keep_every) and step % self.settings.keep_every == 0
