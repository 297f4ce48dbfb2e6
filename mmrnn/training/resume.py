"""Snapshots of a run: enough to resume bit-identically at any step."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmrnn.io.atomic import replace_file
from mmrnn.types import Optimizer

FILE = "snapshot.pt"


@dataclass(frozen=True)
class Progress:
    """Position in a run: `step` steps of stage number `stage` are done."""

    stage: int = 0
    step: int = 0


def save(folder: Path, progress: Progress, model: nn.Module, optimizer: Optimizer, trained: Collection[str]) -> None:
    """Replace the snapshot of a folder atomically.

    Args:
        folder: of the run.
        progress: position in the run.
        model: its trained parameters and its buffers are saved.
        optimizer: of the current stage.
        trained: names of the parameters that any stage trains; the others can be built again.
    """
    changing = {*trained, *(name for name, _ in model.named_buffers())}
    content = {
        "progress": asdict(progress),
        "model": {name: value for name, value in model.state_dict().items() if name in changing},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    replace_file(folder / FILE, lambda path: torch.save(content, path))


def load(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read the snapshot of a folder; None where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        return content | {"progress": Progress(**content["progress"])}
    except Exception as fault:
        raise ValueError(f"{path} is damaged ({fault}); delete it to start the run anew") from fault


def restore(snapshot: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> None:
    """Restore model, optimizer and random state."""
    model.load_state_dict(snapshot["model"], strict=False)
    optimizer.load_state_dict(snapshot["optimizer"])
    torch.set_rng_state(snapshot["random"].cpu())
