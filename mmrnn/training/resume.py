"""Where a run stands, on disk: enough to go on as if it had never been stopped."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from mmrnn.io.atomic import replace_file
from mmrnn.training.optim.build import Optimizer

FILE = "snapshot.pt"


@dataclass(frozen=True)
class Progress:
    """A place in a run: `step` steps of stage number `stage` are done."""

    stage: int = 0
    step: int = 0


def save(folder: Path, position: Progress, model: nn.Module, optimizer: Optimizer, learnt: Collection[str]) -> None:
    """Write one file, whole or not at all.

    Args:
        learnt: names of the parameters that any stage changes; the others can be made again.
    """
    changing = {*learnt, *(name for name, _ in model.named_buffers())}
    content = {
        "position": asdict(position),
        "model": {name: value for name, value in model.state_dict().items() if name in changing},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    replace_file(folder / FILE, lambda path: torch.save(content, path))


def load(folder: Path, device: torch.device | str = "cpu") -> dict | None:
    """What `save` wrote last, or None when there is nothing.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        return content | {"position": Progress(**content["position"])}
    except Exception as fault:
        raise ValueError(f"{path} is damaged ({fault}); delete it to start the run anew") from fault


def restore(content: dict, model: nn.Module, optimizer: Optimizer) -> None:
    """Put a model, an optimizer and the random numbers where they were."""
    model.load_state_dict(content["model"], strict=False)
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"].cpu())
