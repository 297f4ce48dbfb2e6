"""Contract of adapters."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Adapter(Protocol):
    """Change of a built model whose weights are loaded, such as LoRA."""

    @abstractmethod
    def __call__(self, model: nn.Module) -> None:
        """Change the model in place.

        Raises:
            ValueError: the model has none of the modules to change.
        """

    @abstractmethod
    def reset(self, model: nn.Module) -> None:
        """Initialise in place what `__call__` has added to the model, from the same random numbers."""

    @abstractmethod
    def merge(self, model: nn.Module) -> None:
        """Replace the changes by weights that compute the same."""

    def merged_config(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the model that `merge` leaves, as plain data; by default it has no adapter."""
        return {**cfg, "adapter": None}
