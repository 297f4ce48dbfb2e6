"""Name prefixes of training wrappers: DDP, DeepSpeed, FSDP, activation checkpointing, torch.compile, PEFT."""

from collections.abc import Mapping

from torch import Tensor

OUTER = ("module.", "_forward_module.", "_fsdp_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Prefixes before every name of a wrapped model."""

INNER = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.", "base_model.model.")
"""Levels inside a name, from wrappers of single layers or parts."""


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
