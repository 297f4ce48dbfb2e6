"""Name prefixes of training wrappers: DDP, DeepSpeed, FSDP, activation checkpointing, torch.compile, PEFT."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

OUTER = ("module.", "_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Prefixes before every name of a wrapped model."""

INNER = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Levels inside a name, from wrappers of single layers or parts."""


ATTRIBUTE = "model."
"""Attribute of a LightningModule that holds its model; many formats have a prefix like it."""


def strip_wrapper_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove from all names what training wrappers have added."""
    tensors = dict(tensors)
    while tensors:
        prefix = next((p for p in OUTER if all(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            break
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    for level in INNER:
        tensors = {key.replace(level, ""): value for key, value in tensors.items()}
    return tensors


def strip_attribute(tensors: dict[str, Tensor], is_known: Callable[[Iterable[str]], bool]) -> dict[str, Tensor]:
    """Remove the attribute of a LightningModule from all names, where they are known without it alone."""
    if not tensors or not all(key.startswith(ATTRIBUTE) for key in tensors) or is_known(tensors):
        return tensors
    inner = strip_wrapper_prefixes({key.removeprefix(ATTRIBUTE): value for key, value in tensors.items()})
    return inner if is_known(inner) else tensors
