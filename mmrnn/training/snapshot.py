"""Where a run stands, on disk: enough to go on as if it had never been stopped."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from mmrnn.training.optimizer import Optimizer
from mmrnn.weights.files import replace_file

FILE = "snapshot.pt"


@dataclass(frozen=True)
class Position:
    """A place in a run: `step` steps of stage number `stage` are done."""

    stage: int = 0
    step: int = 0


def save(folder: Path, position: Position, model: nn.Module, optimizer: Optimizer, learnt: Collection[str]) -> None:
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
        return content | {"position": Position(**content["position"])}
    except Exception as fault:
        raise ValueError(f"{path} is damaged ({fault}); delete it to start the run anew") from fault


def restore(content: dict, model: nn.Module, optimizer: Optimizer) -> None:
    """Put a model, an optimizer and the random numbers where they were."""
    model.load_state_dict(content["model"], strict=False)
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"].cpu())


def append(path: Path, record: dict) -> None:
    """Add a line to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def records(path: Path) -> list[dict]:
    """The whole lines of a JSON-lines file; what a killed run left of its last line does not count."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def keep(path: Path, until: int) -> None:
    """Forget the records after step `until`: a run that goes on will write them again."""
    kept = [record for record in records(path) if record["step"] <= until]
    replace_file(path, lambda new: new.write_text("".join(json.dumps(record) + "\n" for record in kept)))
