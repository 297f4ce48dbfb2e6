"""Backbone state."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class State:
    """Backbone state: token shifts and WKV matrices, or KV cache.

    A backbone returns a new state and does not modify the one that it was given, so that several continuations can
    start from one state.

    Attributes:
        layers: tensors of each block by name, batch axis first.
        shared: tensors of the whole backbone and of its hook by name, batch axis first.
    """

    layers: tuple[dict[str, Tensor], ...]
    shared: dict[str, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> "State":
        """Return the state with `change` applied to every tensor."""
        layers = tuple({name: change(value) for name, value in layer.items()} for layer in self.layers)
        return State(layers, {name: change(value) for name, value in self.shared.items()})

    def clone(self) -> "State":
        """Return a copy that shares no memory."""
        return self.map(Tensor.clone)

    def detach(self) -> "State":
        """Return the state without its graph."""
        return self.map(Tensor.detach)

    def to(self, device: torch.device | str) -> "State":
        """Return the state on a device."""
        return self.map(lambda value: value.to(device))

    def select(self, rows: Int[Tensor, " rows"]) -> "State":
        """Return the state of some rows, in that order; rows may repeat."""
        return self.map(lambda value: value[rows])

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        tensors = [*self.shared.values(), *(value for layer in self.layers for value in layer.values())]
        return sum(value.nbytes for value in tensors)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        from safetensors.torch import save_file

        tensors = {f"shared.{name}": value for name, value in self.shared.items()}
        for index, layer in enumerate(self.layers):
            tensors |= {f"layers.{index}.{name}": value for name, value in layer.items()}
        save_file({name: value.contiguous() for name, value in tensors.items()}, str(path))

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "State":
        """Read a file that `save` wrote."""
        from safetensors.torch import load_file

        shared, layers = {}, {}
        for key, value in load_file(str(path), device=device).items():
            kind, _, name = key.partition(".")
            if kind == "shared":
                shared[name] = value
            else:
                index, _, name = name.partition(".")
                layers.setdefault(int(index), {})[name] = value
        return cls(tuple(layers[index] for index in sorted(layers)), shared)
