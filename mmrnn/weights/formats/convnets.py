"""Convolutional networks: timm's own names, and those of EfficientNet-PyTorch."""

import re

from torch import Tensor, nn

from mmrnn.weights.format import Format

Tensors = dict[str, Tensor]

HEAD = "of the head, which no encoder here has"
STEMS = ("conv_stem.weight", "conv1.weight", "conv1.0.weight", "stem.0.weight", "stem.conv.weight")
"""First tensor of EfficientNet and MobileNet, ResNet (plain and with a deep stem), ConvNeXt, RegNet in timm."""

SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""A block without and with expansion: their names -> timm's."""


def drop_unused(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Without the stages behind the maps that are read."""
    unused = {name for name in tensors if name.removeprefix("trunk.") in module.unused}
    if unused:
        notes.append(f"{len(unused)} tensors behind the last map that is read were left out")
    return {name: value for name, value in tensors.items() if name not in unused}


def stages(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """EfficientNet-PyTorch counts blocks through, timm within each stage."""
    places = [(f"{s}.{i}", block) for s, stage in enumerate(module.trunk.blocks) for i, block in enumerate(stage)]
    renamed, late = {}, set()
    for name, value in tensors.items():
        match = re.fullmatch(r"trunk\._blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match is None:
            renamed[name] = value
        elif int(match[1]) >= len(places):
            late.add(int(match[1]))
        else:
            place, block = places[int(match[1])]
            inner = (INVERTED if hasattr(block, "conv_pwl") else SEPARABLE)[match[2]]
            renamed[f"trunk.blocks.{place}.{inner}.{match[3]}"] = value
    if late:
        notes.append(f"the blocks from {min(late)} on were left out: they lie behind the last map that is read")
    return drop_unused(renamed, module, notes)


FORMATS: tuple[Format, ...] = (
    *(
        Format(
            "timm",
            "TimmFeatures",
            signature=(stem,),
            names={"*": "trunk.*"},
            ignored=dict.fromkeys(("head.*", "fc.*", "classifier.*"), HEAD),
            adapt=drop_unused,
        )
        for stem in STEMS
    ),
    Format(
        "efficientnet_pytorch",
        "TimmFeatures",
        signature=("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"),
        names={
            "_conv_stem.*": "trunk.conv_stem.*",
            "_bn0.*": "trunk.bn1.*",
            "_blocks.*": "trunk._blocks.*",
            "_conv_head.*": "trunk.conv_head.*",
            "_bn1.*": "trunk.bn2.*",
        },
        ignored={"_fc.*": HEAD},
        adapt=stages,
    ),
)
