"""Convolutional networks under the names of timm and of EfficientNet-PyTorch."""

import re

from torch import nn

from mmrnn.encoders import TimmFeatures
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.ignored import HEAD

STEMS = ("conv_stem.weight", "conv1.weight", "conv1.0.weight", "stem.0.weight", "stem.conv.weight")
"""Stem weight in timm: EfficientNet and MobileNet, ResNet (plain and with a deep stem), ConvNeXt, RegNet."""

BLOCK = re.compile(r"trunk\.blocks\.\d+\.\d+\.")
THEIR_BLOCK = re.compile(r"trunk\._blocks\.(?P<number>\d+)\.(?P<layer>\w+)\.(?P<leaf>\w+)")
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Layers of a block without and with expansion: their names -> those of timm."""


def drop_unused(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Drop the layers after the last feature map that is used."""
    unused = {name for name in tensors if name.removeprefix("trunk.") in module.unused}
    if unused:
        notes.append(f"{len(unused)} tensors after the last feature map that is used were left out")
    return {name: value for name, value in tensors.items() if name not in unused}


def rename_blocks(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Rename blocks, which EfficientNet-PyTorch numbers through and timm within each stage."""
    target = module.state_dict()
    blocks = list(dict.fromkeys(match[0] for name in target if (match := BLOCK.match(name))))
    renamed, dropped = {}, set()
    for name, value in tensors.items():
        match = THEIR_BLOCK.fullmatch(name)
        if match is None:
            renamed[name] = value
        elif int(match["number"]) >= len(blocks):
            dropped.add(int(match["number"]))
        else:
            block = blocks[int(match["number"])]
            layers = INVERTED if f"{block}conv_pwl.weight" in target else SEPARABLE
            renamed[f"{block}{layers[match['layer']]}.{match['leaf']}"] = value
    if dropped:
        notes.append(f"the blocks from {min(dropped)} on were left out: no feature map after them is used")
    return drop_unused(renamed, module, notes)


FORMATS: tuple[Format, ...] = (
    *(
        Format(
            "timm",
            TimmFeatures,
            signature=(stem,),
            names={"*": "trunk.*"},
            ignored=dict.fromkeys(("head.*", "fc.*", "classifier.*"), HEAD),
            adapt=drop_unused,
        )
        for stem in STEMS
    ),
    Format(
        "efficientnet_pytorch",
        TimmFeatures,
        signature=("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"),
        names={
            "_conv_stem.*": "trunk.conv_stem.*",
            "_bn0.*": "trunk.bn1.*",
            "_blocks.*": "trunk._blocks.*",
            "_conv_head.*": "trunk.conv_head.*",
            "_bn1.*": "trunk.bn2.*",
        },
        ignored={"_fc.*": HEAD},
        adapt=rename_blocks,
    ),
)
