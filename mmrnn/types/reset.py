"""Initialisation in place: of models that were built without memory, and of any part once more."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

TORCH_LAYERS = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _ConvNd, _NormBase)
"""Layers of torch whose `reset_parameters` initialises all of their tensors."""


@runtime_checkable
class Resettable(Protocol):
    """A part whose tensors can be initialised in place, for example after `to_empty`."""

    def reset(self) -> None:
        """Initialise all parameters and buffers in place, as the constructor does from the same random numbers.

        By default the modules inside are reset, in the order in which they were registered. A part with parameters or
        buffers of its own defines it.

        Raises:
            TypeError: a module has tensors of its own, and no `reset`.
        """
        if isinstance(self, nn.Module):
            reset_children(self)


def reset_module(module: nn.Module) -> None:
    """Initialise a module in place: by its `reset`, as a layer of torch, or module by module inside.

    Raises:
        TypeError: a module has tensors of its own, and no `reset`.
    """
    if isinstance(module, Resettable):
        module.reset()
    elif isinstance(module, TORCH_LAYERS):
        module.reset_parameters()
    else:
        reset_children(module)


def reset_children(module: nn.Module) -> None:
    """Initialise the modules inside one that has no tensors of its own.

    Raises:
        TypeError: a module has tensors of its own, and no `reset`.
    """
    if own := next(_own_tensors(module), None):
        raise TypeError(f"{type(module).__name__} has {own!r} of its own: give it a `reset` that initialises them")
    for child in module.children():
        reset_module(child)


def reset_layers(module: nn.Module) -> None:
    """Initialise the layers of torch inside a module, in the order in which they were registered, and nothing else."""
    for inner in module.modules():
        if isinstance(inner, TORCH_LAYERS):
            inner.reset_parameters()


def _own_tensors(module: nn.Module) -> Iterator[str]:
    for tensors in (module._parameters, module._buffers):
        yield from (name for name, tensor in tensors.items() if tensor is not None)
