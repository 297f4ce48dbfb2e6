"""Trackio."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrnn.io.optional import require
from mmrnn.types import Tracker


class Trackio(Tracker):
    """Curves in Trackio; a resumed run continues the same one.

    Raises:
        ImportError: trackio is not installed.
    """

    def __init__(self, *, project: str = "mmrnn", space_id: str | None = None) -> None:
        self._trackio = require("trackio", "trackio", wanted_by="tracker=trackio", extra="trackio")
        self.project, self.space_id = project, space_id

    def start(self, folder: Path, config: Mapping[str, Any], *, id: str, step: int) -> None:
        """Begin or resume the run; Trackio knows runs by their names, so the name holds `id`."""
        self._run = self._trackio.init(
            project=self.project,
            name=f"{folder.name}-{id}",
            space_id=self.space_id,
            config=dict(config),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        """Write or upload the rest."""
        self._run.finish()
