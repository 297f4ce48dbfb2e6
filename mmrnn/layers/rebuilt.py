"""Base of parts that a library builds: to initialise one again, a second one is built and copied."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Rebuilt(nn.Module):
    """Module whose `reset` builds a second one with the same arguments on the CPU, and copies its tensors.

    Functions of timm, open_clip and transformers that initialise a built model cover neither all of its buffers nor the
    random numbers of layers that were cut off. For as long as the copy is made, the module is in memory twice.
    """

    _knobs: dict[str, Any]

    def __new__(cls, /, *_: Any, **knobs: Any) -> "Rebuilt":
        """Store the arguments."""
        module = super().__new__(cls)
        object.__setattr__(module, "_knobs", knobs)
        return module

    @torch.no_grad()
    def reset(self) -> None:
        """Initialise parameters and buffers in place, from the same random numbers as the constructor."""
        with torch.device("cpu"):
            fresh = type(self)(**self._knobs)
        named = dict(_tensors(self))
        for name, value in _tensors(fresh):
            named[name].copy_(value)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # A tied tensor stands under all of its names: on the way to another device it may have become several.
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
