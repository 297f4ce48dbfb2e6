"""TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrnn.config.tree import leaves
from mmrnn.io.optional import require
from mmrnn.types import PositiveInt, Tracker

FOLDER = "tensorboard"
"""Folder of the event files in the folder of a run."""


class TensorBoard(Tracker):
    """Curves in TensorBoard, from event files in the folder of the run.

    Raises:
        ImportError: tensorboard is not installed.
    """

    rewinds = True

    def __init__(self, *, flush_seconds: PositiveInt = 30) -> None:
        package = require(
            "torch.utils.tensorboard", "tensorboard", wanted_by="tracker=tensorboard", extra="tensorboard"
        )
        self._open, self.flush_seconds = package.SummaryWriter, flush_seconds

    def start(self, folder: Path, config: Mapping[str, Any], *, id: str, step: int) -> None:
        """Open an event file; TensorBoard drops what earlier files hold of later steps than `step`."""
        self._writer = self._open(str(folder / FOLDER), purge_step=step + 1, flush_secs=self.flush_seconds)
        if not step:
            rows = "\n".join(f"| {name} | {value} |" for name, value in leaves(config))
            self._writer.add_text("config", f"| name | value |\n|---|---|\n{rows}", 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """Write and close the event file."""
        self._writer.close()
