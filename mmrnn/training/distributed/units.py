"""Units in which FSDP gathers the parameters of a model."""

from torch import nn

from mmrnn.model.vlm import VLM
from mmrnn.types import Encoder, Objective


def sharding_units(model: VLM, objective: Objective) -> list[nn.Module]:
    """Return the modules that are gathered by themselves, inner ones first: blocks, then connectors.

    A connector that the objective calls in its own way (BLIP-2's first stage) is left to the root.
    """
    units: list[nn.Module] = [*blocks(model.backbone)]
    for modality in model.modalities.values():
        units += [block for tower in towers(modality.encoder) for block in blocks(tower)]
        if objective.needs_backbone and any(True for _ in modality.connector.parameters()):
            units.append(modality.connector)
    return units


def towers(encoder: Encoder) -> list[Encoder]:
    """Return the encoders inside an encoder that have none inside; itself where it has none."""
    inner = encoder.inner_encoders()
    return [tower for part in inner for tower in towers(part)] if inner else [encoder]


def blocks(part: nn.Module) -> list[nn.Module]:
    """Return the blocks of a tower or backbone: the longest list of modules of one class."""
    lists = [module for module in part.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    alike = [[*found] for found in lists if len({type(module) for module in found}) == 1]
    longest = max(alike, key=len, default=[])
    return [block for block in longest if any(True for _ in block.parameters())]
