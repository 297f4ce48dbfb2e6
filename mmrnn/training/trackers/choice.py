"""Trackers that stand for others: none, the default, several."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmrnn.training.trackers.tensorboard_tracker import TensorBoard
from mmrnn.types import Tracker


class SeveralTrackers(Tracker):
    """Several trackers at once; in a run, each has a thread of its own, so that they fail and wait by themselves.

    Args:
        trackers: by name.

    Raises:
        ValueError: a name holds other characters than letters, digits, `_` and `-`.
    """

    def __init__(self, *, trackers: Mapping[str, Tracker]) -> None:
        if wrong := [name for name in trackers if not re.fullmatch(r"[\w-]+", name)]:
            raise ValueError(f"trackers: {wrong[0]!r} is no name; use letters, digits, _ and -")
        self.trackers = dict(trackers)

    def start(self, folder: Path, config: Mapping[str, Any], *, id: str, step: int) -> None:
        """Start each of them."""
        for tracker in self.trackers.values():
            tracker.start(folder, config, id=id, step=step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values in each of them."""
        for tracker in self.trackers.values():
            tracker.log(step, values)

    def finish(self) -> None:
        """End each of them."""
        for tracker in self.trackers.values():
            tracker.finish()


class NoTracker(SeveralTrackers):
    """No tracker."""

    def __init__(self) -> None:
        super().__init__(trackers={})


class AutoTracker(SeveralTrackers):
    """TensorBoard where it is installed, otherwise none."""

    def __init__(self) -> None:
        super().__init__(trackers={})
        with suppress(ImportError):
            self.trackers["tensorboard"] = TensorBoard()
