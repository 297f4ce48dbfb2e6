"""A sharded model as a plain one: for evaluation without collectives, and for saving."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from mmrnn.model.build import build
from mmrnn.model.objective import OBJECTIVE, attach_embedder
from mmrnn.model.vlm import VLM
from mmrnn.weights.convert import EMBEDDER


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
    tensors |= _embedder_tensors(model, tensors)
    with torch.device("meta"):
        copy = build({**model.config, "weights": {}})
        attach_embedder(copy, tensors, model.config.get("trusted") or ())
    names = set(copy.state_dict())
    copy.load_state_dict({name: value for name, value in tensors.items() if name in names}, assign=True)
    # Buffers that are not saved come from the model itself.
    for name, value in model.named_buffers():
        owner, _, key = name.rpartition(".")
        if name not in names and not name.startswith(OBJECTIVE):
            setattr(copy.get_submodule(owner), key, value.cpu() if main_only else value)
    copy.config = model.config
    return copy.eval()


def _embedder_tensors(model: VLM, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of what embeds images and texts, a part of the objective, under the names of a plain model."""
    embedder = model.find_embedder()
    path = next((f"{path}." for path, module in model.named_modules() if module is embedder), None)
    if path is None:
        return {}
    return {EMBEDDER + name.removeprefix(path): value for name, value in tensors.items() if name.startswith(path)}
