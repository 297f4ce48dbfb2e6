"""Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mmrnn.io.optional import require
from mmrnn.types import Tracker


class WandB(Tracker):
    """Curves in Weights & Biases; a resumed run continues the same one.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(
        self, *, project: str = "mmrnn", entity: str | None = None, mode: Literal["online", "offline"] = "online"
    ) -> None:
        self._wandb = require("wandb", "wandb", wanted_by="tracker=wandb", extra="wandb")
        self.project, self.entity, self.mode = project, entity, mode

    def start(self, folder: Path, config: Mapping[str, Any], *, id: str, step: int) -> None:
        """Begin or resume the run `id`, shown with the name of its folder."""
        self._run = self._wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=str(folder),
            id=id,
            name=folder.name,
            config=dict(config),
            resume="allow",
            settings={"console": "off"},
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        """Upload the rest."""
        self._run.finish()
