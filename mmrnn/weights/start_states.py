"""Start states of RWKV (state tuning): in a file of their own, or in none."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmrnn.backbones.rwkv import RWKV
from mmrnn.weights.convert import WeightsError

STATE = re.compile(r"(?:.+\.)?blocks\.\d+\.att\.time_state")
"""Name of the start state of a layer in the files of RWKV-PEFT and RWKV-LM."""


def to_file(start: Tensor) -> dict[str, Tensor]:
    """Return start states, (layer, head, key, value), as RWKV-PEFT writes them: (head, value, key), one a layer."""
    return {f"blocks.{layer}.att.time_state": state.mT for layer, state in enumerate(start)}


def are_all(tensors: Mapping[str, Tensor]) -> bool:
    """True if a source holds start states and nothing else."""
    return bool(tensors) and all(STATE.fullmatch(name) for name in tensors)


def require_base(module: nn.Module) -> None:
    """Check that a module has start states to replace, and weights.

    Raises:
        WeightsError: it has not.
    """
    starts = list(_find(module).values())
    if not starts:
        raise WeightsError(
            "these are start states of an RWKV alone (state tuning), and the module has none to replace: build its "
            "backbone with learned_state=true"
        )
    if starts[0].is_meta:
        raise WeightsError(
            "these are start states of an RWKV alone (state tuning), and the module has no weights yet: load the base "
            "first, or name both files as one source"
        )


def fill(module: nn.Module, converted: dict[str, Tensor], notes: list[str]) -> None:
    """Set the start states that no file brings to zero, from where state tuning begins."""
    for name, start in _find(module).items():
        if name not in converted:
            converted[name] = torch.zeros(start.shape, dtype=start.dtype)
            notes.append(f"{name}: the source has no start states; they are zero")


def _find(module: nn.Module) -> dict[str, nn.Parameter]:
    """Start states of every RWKV in a module, by name."""
    parts = {f"{path}.start" if path else "start": part for path, part in module.named_modules()}
    return {name: part.start for name, part in parts.items() if isinstance(part, RWKV) and part.start is not None}
