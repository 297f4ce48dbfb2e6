"""Snapshots of a run: enough to resume bit-identically at any step."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmrnn.io.atomic import replace_file
from mmrnn.training.error import TrainingError
from mmrnn.training.saved_run import Progress
from mmrnn.types import Optimizer

FILE = "snapshot.pt"


def save(folder: Path, progress: Progress, model: nn.Module, optimizer: Optimizer, trained: Collection[str]) -> None:
    """Replace the snapshot of a folder atomically.

    Args:
        folder: of the run.
        progress: position in the run.
        model: its trained parameters and its buffers are saved.
        optimizer: of the current stage.
        trained: names of the parameters that any stage trains; the others can be built again.

    Raises:
        DiskFullError: there is no space for it; the snapshot before stays.
        TrainingError: a trained parameter or the state of the optimizer is not finite; the snapshot before stays.
    """
    changing = {*trained, *(name for name, _ in model.named_buffers())}
    content = {
        "progress": asdict(progress),
        "model": {name: value for name, value in model.state_dict().items() if name in changing},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    learnt = [content["model"][name] for name in trained if name in content["model"]]
    if not _all_finite([*learnt, *_tensors(content["optimizer"])]):
        raise TrainingError(
            f"weights or the state of the optimizer are not finite after step {progress.step}; lower the learning rate "
            "or train in fp32; the snapshot of an earlier step is kept"
        )
    size = sum(tensor.nbytes for tensor in _tensors(content))
    replace_file(folder / FILE, lambda path: torch.save(content, path), size)


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
    """Restore model, optimizer and random state (that of as many GPUs as there are here)."""
    model.load_state_dict(snapshot["model"], strict=False)
    optimizer.load_state_dict(snapshot["optimizer"])
    torch.set_rng_state(snapshot["random"].cpu())
    for index, state in enumerate(snapshot["cuda_random"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state.cpu(), index)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    """True where no entry is infinite or NaN; one synchronisation for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        by_device.setdefault(tensor.device, []).append(tensor.isfinite().all())
    return all(bool(torch.stack(flags).all()) for flags in by_device.values())
