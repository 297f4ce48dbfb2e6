"""Tensors of a run on disk, by `torch.distributed.checkpoint`: each rank writes and reads its own part of them.

A checkpoint is a folder that any number of ranks reads, whatever number has written it. It holds what the run changes:
trained parameters, buffers, and the state of the optimizer.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from mmrnn.io.errors import first_line
from mmrnn.training.distributed.checkpoint_metadata import SafeReader
from mmrnn.types import Optimizer

# A run of one process has no process group, and needs none: it is no mistake that is to be reported at every save.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

MODEL, OPTIMIZER, MORE = "model.", "optimizer.", "more."
"""Prefixes of the tensors of a checkpoint."""


@dataclass(frozen=True)
class TrainingState:
    """Tensors of a run that a checkpoint holds.

    Attributes:
        model: plain, the inside of a DDP wrapper, or sharded (FSDP2).
        optimizer: of the current stage.
        trained: names of the parameters that any stage trains; the others can be built again.
        module: outermost module, where it is sharded and holds parameters of the model; None: the model.
        more: further tensors that change (EMA), by name.
    """

    model: nn.Module
    optimizer: Optimizer
    trained: Collection[str]
    module: nn.Module | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; they share memory with the model and the optimizer."""
        return {
            **self._model_tensors(),
            **{name: value for name, value in self._optimizer_state() if isinstance(value, Tensor)},
            **{MORE + name: value for name, value in self.more.items()},
        }

    def numbers(self) -> dict[str, float]:
        """Return the numbers in the state of the optimizer that are no tensors, by name."""
        return {name: value for name, value in self._optimizer_state() if isinstance(value, int | float)}

    def is_finite(self) -> bool:
        """True where no trained parameter and no state of the optimizer on this rank is infinite or NaN."""
        names = {MODEL + name for name in self.trained}
        tensors = self.tensors()
        learns = [value for name, value in tensors.items() if name in names or not name.startswith(MODEL)]
        return _all_finite(learns)

    def load(self, folder: Path, numbers: Mapping[str, float], group: dist.ProcessGroup | None = None) -> None:
        """Read the tensors of a checkpoint into the model, the optimizer and `more`; all ranks.

        Args:
            folder: of the checkpoint.
            numbers: what `numbers` returned when it was saved.
            group: of all ranks; None: this process alone.

        Raises:
            ValueError: the checkpoint is damaged, or of another model.
        """
        try:
            reader = SafeReader(folder)
            states = self._saved_states(reader.read_metadata(), numbers)
            tensors = {**self._model_tensors(), **{MORE + name: value for name, value in self.more.items()}}
            tensors |= {name: value for _, _, found in states for name, value in found.items()}
            tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
            dcp.load(tensors, storage_reader=reader, process_group=group, no_dist=group is None)
        except (CheckpointException, OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"the checkpoint {folder} is damaged, or of another model: {_reason(error)}") from error
        self._restore(states)

    def _model_tensors(self) -> dict[str, Tensor]:
        for part in (self.module or self.model).modules():
            if isinstance(part, FSDPModule):
                # A forward pass without a backward pass leaves the parameters gathered.
                part.reshard()
        kept = {*self.trained, *(name for name, _ in self.model.named_buffers())}
        return {MODEL + name: value for name, value in self.model.state_dict().items() if name in kept}

    def _names(self) -> dict[nn.Parameter, str]:
        return {parameter: name for name, parameter in self.model.named_parameters()}

    def _optimizer_state(self) -> Iterator[tuple[str, Any]]:
        names = self._names()
        for part in self.optimizer.parts:
            for parameter, state in part.state.items():
                for key, value in state.items():
                    yield f"{OPTIMIZER}{names[parameter]}.{key}", value

    def _saved_states(
        self, metadata: Metadata, numbers: Mapping[str, float]
    ) -> list[tuple[torch.optim.Optimizer, nn.Parameter, dict[str, Any]]]:
        """Optimizer, parameter and its state, with memory for the tensors; parameters without a state are left out."""
        saved = {**numbers, **metadata.state_dict_metadata}
        keys: dict[str, list[str]] = {}
        for name in saved:
            keys.setdefault(name.rpartition(".")[0], []).append(name)
        names, states = self._names(), []
        for part in self.optimizer.parts:
            for parameter in (one for group in part.param_groups for one in group["params"]):
                found = keys.get(OPTIMIZER + names[parameter], [])
                if found:
                    states.append((part, parameter, {name: _empty(saved[name], parameter) for name in found}))
        return states

    def _restore(self, states: list[tuple[torch.optim.Optimizer, nn.Parameter, dict[str, Any]]]) -> None:
        """Give every optimizer the state of its parameters; it moves scalars to the device where it wants them."""
        for part in self.optimizer.parts:
            whole = part.state_dict()
            order = [one for group in part.param_groups for one in group["params"]]
            numbers = {parameter: number for number, parameter in enumerate(order)}
            whole["state"] = {
                numbers[parameter]: {name.rpartition(".")[2]: value for name, value in state.items()}
                for owner, parameter, state in states
                if owner is part
            }
            part.load_state_dict(whole)


def _empty(saved: Any, parameter: nn.Parameter) -> Any:
    """Memory for a saved tensor, sharded as its parameter where it has the same shape; a number is returned."""
    if not isinstance(saved, TensorStorageMetadata):
        return saved
    if saved.size == parameter.shape:
        return torch.zeros_like(parameter, dtype=saved.properties.dtype, requires_grad=False)
    return torch.zeros(saved.size, dtype=saved.properties.dtype)


def _all_finite(tensors: Collection[Tensor]) -> bool:
    """True where no entry is infinite or NaN; one synchronisation for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        by_device.setdefault(local.device, []).append(local.isfinite().all())
    return all(bool(torch.stack(flags).all()) for flags in by_device.values())


def _reason(error: BaseException) -> str:
    """First line of the cause of a failure, which may be that of another rank."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (cause, _) = next(iter(error.failures.items()))
        return f"rank {rank}: {first_line(cause)}"
    return first_line(error)
