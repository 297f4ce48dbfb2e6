"""Backbone state."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class State:
    """All that a backbone remembers of what it has read: shifts and WKV matrices, or keys and values.

    Every tensor has the sample axis first. A backbone answers with a new state and leaves the old one as it is,
    so a state can be kept and continued from several times.
    """

    layers: tuple[dict[str, Tensor], ...]
    shared: dict[str, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> "State":
        layers = tuple({name: change(value) for name, value in layer.items()} for layer in self.layers)
        return State(layers, {name: change(value) for name, value in self.shared.items()})

    def clone(self) -> "State":
        return self.map(Tensor.clone)

    def detach(self) -> "State":
        return self.map(Tensor.detach)

    def to(self, device: torch.device | str) -> "State":
        return self.map(lambda value: value.to(device))

    def select(self, rows: Int[Tensor, " rows"]) -> "State":
        """The state of some rows, in that order; a row may be asked for more than once."""
        return self.map(lambda value: value[rows])

    @property
    def nbytes(self) -> int:
        tensors = [*self.shared.values(), *(value for layer in self.layers for value in layer.values())]
        return sum(value.nbytes for value in tensors)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        from safetensors.torch import save_file

        named = {f"shared.{name}": value for name, value in self.shared.items()}
        for index, layer in enumerate(self.layers):
            named |= {f"layers.{index}.{name}": value for name, value in layer.items()}
        save_file({name: value.contiguous() for name, value in named.items()}, str(path))

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "State":
        """Read what `save` wrote."""
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
