"""Evaluation mode of a model while it answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from weakref import WeakKeyDictionary

from torch import nn

Modes = dict[nn.Module, bool]

_LOCK = RLock()
_ACTIVE: "WeakKeyDictionary[nn.Module, list[Modes]]" = WeakKeyDictionary()
"""For each model, one entry for each context that is open; all hold the modes from before the first one."""


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Context with the model in evaluation mode; the last context to end restores the mode of every module.

    Contexts of several threads or of interleaved generators may overlap.
    """
    with _LOCK:
        active = _ACTIVE.setdefault(model, [])
        active.append(active[0] if active else {module: module.training for module in model.modules()})
        model.eval()
    try:
        yield
    finally:
        with _LOCK:
            modes = active.pop()
            if not active:
                del _ACTIVE[model]
                for module, mode in modes.items():
                    module.training = mode
