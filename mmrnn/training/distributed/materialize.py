"""Values for a sharded model that was built without memory: each process keeps its shards alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from torch.utils._python_dispatch import TorchDispatchMode

from mmrnn.model.start import Start
from mmrnn.training.step import TrainStep

aten = torch.ops.aten


def materialize(step: TrainStep, start: Start, device: torch.device | str) -> None:
    """Give a model whose parameters are on the meta device its initial values, and move it to a device.

    Every process computes the initial values of whole tensors and reads whole tensors of the files, one at a time, and
    keeps its shards. With the same seed as that of a build in memory, the values are the same bit for bit. Two things
    need more than one tensor at a time: a part of another library without weights, whose `reset` builds a second one,
    and formats that join the tensors of a tower (query, key and value).

    Args:
        step: a model built by `build_on_meta`, and its objective; perhaps sharded.
        start: the initial values; its `values` are used up.
        device: of the shards.

    Raises:
        RuntimeError: a parameter got no value.
    """
    allocate(step, device)
    with FullInit(), torch.no_grad():
        for initialise in start.initialisers:
            initialise()
    model = step.model
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    with torch.no_grad():
        for name in list(start.values):
            copy_shard(tensors[name], start.values.pop(name))
        for copy in start.copies:
            copy()
    _check_filled(model)


def allocate(module: nn.Module, device: torch.device | str) -> None:
    """Allocate parameters on the meta device as NaN, and move all else to a device; tied parameters stay tied."""
    owners = [
        (owner, leaf, parameter)
        for owner in module.modules()
        for leaf, parameter in owner._parameters.items()
        if parameter is not None
    ]
    first: dict[int, tuple[nn.Module, str]] = {}
    for owner, leaf, parameter in owners:
        first.setdefault(id(parameter), (owner, leaf))
    module._apply(lambda tensor: _allocated(tensor, torch.device(device)))
    for owner, leaf, parameter in owners:
        origin, name = first[id(parameter)]
        owner._parameters[leaf] = origin._parameters[name]


def _allocated(tensor: Tensor, device: torch.device) -> Tensor:
    if not tensor.is_meta:
        return tensor.to(device)
    return torch.empty_like(tensor, device=device).fill_(torch.nan if tensor.is_floating_point() else 0)


def copy_shard(target: Tensor, whole: Tensor) -> None:
    """Copy into a tensor; into a sharded one, the part of this process."""
    if isinstance(target, DTensor):
        target, whole = target.to_local(), local_part(target, whole)
    target.copy_(whole)


def local_part(sharded: DTensor, whole: Tensor) -> Tensor:
    """Part of a whole tensor that this process holds of a sharded one: chunk by chunk along the axes of its mesh.

    Raises:
        ValueError: the tensor is neither sharded nor replicated.
    """
    for axis, placement in enumerate(sharded.placements):
        if isinstance(placement, Shard):
            chunks = whole.chunk(sharded.device_mesh.size(axis), placement.dim)
            rank = sharded.device_mesh.get_local_rank(axis)
            whole = chunks[rank] if rank < len(chunks) else whole.narrow(placement.dim, 0, 0)
        elif not placement.is_replicate():
            raise ValueError(f"a parameter must be sharded or replicated, and is {placement}")
    return whole


class FullInit(TorchDispatchMode):
    """Context in which random functions draw whole tensors on the CPU, of which sharded ones take their part.

    So the random numbers are the same on every number of processes and on every device. They are drawn in the default
    dtype, as a build in memory draws them before it casts. Other functions run on the shards; they are elementwise in
    an initialiser. New tensors like a sharded one are whole.
    """

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `function` on whole tensors where it draws, copies or allocates, and as it is otherwise."""
        kwargs = kwargs or {}
        target = args[0] if args else None
        elsewhere = isinstance(target, Tensor) and (
            isinstance(target, DTensor) or target.device.type not in ("cpu", "meta")
        )
        if not elsewhere:
            return function(*args, **kwargs)
        if function is aten.copy_.default and isinstance(target, DTensor) and not isinstance(args[1], DTensor):
            copy_shard(target, args[1])
            return target
        if function is aten.new_empty.default and isinstance(target, DTensor):
            return torch.empty(args[1])
        if torch.Tag.nondeterministic_seeded in function.tags:
            return _draw(function, target, args[1:], kwargs)
        return function(*args, **kwargs)


def _draw(function: Callable[..., Tensor], target: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    if not function._schema.is_mutable:
        raise RuntimeError(f"{function} draws a new tensor like one that is sharded; fill the parameter in place")
    whole = torch.empty(target.shape)
    copy_shard(target, function(whole, *args, **kwargs))
    return target


def _check_filled(model: nn.Module) -> None:
    """Check that every parameter has a value.

    Raises:
        RuntimeError: one has none.
    """
    for name, parameter in model.named_parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if local.isnan().any():
            raise RuntimeError(
                f"{name} has no initial value: its part has no `reset` that covers it, or a file has NaN"
            )
