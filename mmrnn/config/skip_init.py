"""Skip random initialisation on the meta device."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

INIT_FUNCTIONS = ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "erfinv_")


class SkipInit(TorchFunctionMode):
    """Context in which initialisers leave meta tensors alone; PyTorch would run each step of them in Python."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `function`, unless it initialises a meta tensor."""
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("tensor")
        # Some of what is dispatched here (descriptors) has no name.
        if getattr(function, "__name__", "") in INIT_FUNCTIONS and isinstance(first, Tensor) and first.is_meta:
            return first
        return function(*args, **kwargs)
