"""Building on the meta device: without memory, and without or with the random numbers of a build in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

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


class DrawOnly(TorchDispatchMode):
    """Context in which a build on the meta device draws the random numbers of a build on the CPU, and drops them.

    One tensor at a time is in memory.
    """

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `function`, and where it gives a random meta tensor, its twin on the CPU, too."""
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        random = torch.Tag.nondeterministic_seeded in function.tags
        if random and isinstance(result, Tensor) and result.is_meta:
            function(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        return result


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_meta:
        return torch.empty_like(value, device="cpu")
    return torch.device("cpu") if value == torch.device("meta") else value


@contextmanager
def meta_parameters() -> Iterator[None]:
    """Context in which modules get their parameters on the meta device and their buffers in memory.

    Buffers (position tables, statistics) are small, and no file need bring them; their constructor computes them.
    Random numbers that constructors draw are given back.
    """

    def move(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(move)
    try:
        with SkipInit(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        hook.remove()
