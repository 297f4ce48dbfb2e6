"""A sharded model as a plain one: for evaluation without collectives, and for saving."""

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from mmrnn.model.build import build
from mmrnn.model.vlm import VLM


def whole_model(model: VLM, *, main_only: bool = False) -> VLM | None:
    """Gather a sharded model into a plain copy; all processes must call this.

    Args:
        model: sharded, with its configuration.
        main_only: on rank 0 alone, in the memory of the CPU; None on the others.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=main_only)
    tensors = get_model_state_dict(model, options=options)
    if main_only and torch.distributed.get_rank():
        return None
    with torch.device("meta"):
        copy = build({**model.config, "weights": {}})
    names = set(copy.state_dict())
    copy.load_state_dict({name: value for name, value in tensors.items() if name in names}, assign=True)
    # Buffers that are not saved come from the model itself.
    for name, value in model.named_buffers():
        owner, _, key = name.rpartition(".")
        if name not in names and not name.startswith("objective."):
            setattr(copy.get_submodule(owner), key, value.cpu() if main_only else value)
    copy.config = model.config
    return copy.eval()
