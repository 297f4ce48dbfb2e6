"""InfiniteVL under its released names: language model, and all of it in one file. Its tower is in `qwen35`."""

import torch
from torch import nn

from mmrnn.backbones import Hybrid
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.ignored import VISION
from mmrnn.weights.formats.llama import drop_tied_head
from mmrnn.weights.formats.qwen35 import ATTENTION, COMMON, MIXER

CONVOLUTIONS = ("q", "k", "v")
"""Convolutions of query, key and value, which are one of all their channels."""

NAMES = {
    **COMMON,
    f"{ATTENTION}q_proj.*": f"{MIXER}query.*",
    f"{ATTENTION}k_proj.*": f"{MIXER}key.*",
    f"{ATTENTION}v_proj.*": f"{MIXER}value.*",
    f"{ATTENTION}o_proj.weight": f"{MIXER}output.weight",
    f"{ATTENTION}a_proj.weight": f"{MIXER}decay.weight",
    f"{ATTENTION}b_proj.weight": f"{MIXER}rate.weight",
    f"{ATTENTION}g_proj.weight": f"{MIXER}gate.weight",
    **{f"{ATTENTION}{one}_conv1d.weight": f"{MIXER}{one}@conv.weight" for one in CONVOLUTIONS},
    f"{ATTENTION}A_log": f"{MIXER}decay_log",
    f"{ATTENTION}dt_bias": f"{MIXER}decay_bias",
    f"{ATTENTION}o_norm.weight": f"{MIXER}norm.weight",
}
"""Both kinds of layers have the names of an attention; `q@conv`, `k@conv` and `v@conv` are parts of one convolution."""


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Join the three convolutions of a layer, and drop a head that is tied."""
    joined = {name: value for name, value in tensors.items() if "@conv." not in name}
    for name in tensors:
        path, mark, _ = name.partition("q@conv.")
        if mark:
            joined[f"{path}conv.weight"] = torch.cat([tensors[f"{path}{one}@conv.weight"] for one in CONVOLUTIONS])
    return drop_tied_head(joined, module, notes)


def inverse(tensors: Tensors) -> Tensors:
    """Undo `adapt`: the channels are those of the projections in front."""
    parts = {}
    for name, value in tensors.items():
        path, mark, _ = name.partition("conv.")
        if not mark:
            parts[name] = value
            continue
        rows = value.split([len(tensors[f"{path}{one}.weight"]) for one in ("query", "key", "value")])
        parts |= {f"{path}{one}@conv.weight": row for one, row in zip(CONVOLUTIONS, rows, strict=True)}
    return parts


def text(model: str) -> Format:
    """Format of the language model, whose tensors but the head begin with `model`."""
    return Format(
        "infinitevl",
        Hybrid,
        signature=(f"{model}embed_tokens.weight", f"{model}layers.1.self_attn.q_conv1d.weight"),
        names={theirs.replace("model.", model, 1): ours for theirs, ours in NAMES.items()},
        ignored=dict.fromkeys(("visual.*", "model.visual.*"), VISION),
        adapt=adapt,
        inverse=inverse,
    )


def whole(model: str, visual: str) -> Format:
    """Format of a file of all parts."""
    return Format(
        "infinitevl",
        None,
        signature=(f"{model}layers.1.self_attn.q_conv1d.weight", f"{visual}merger.ln_q.weight"),
        submodules={
            f"{visual}merger.": ("modalities.image.connector", "merger."),
            visual: "modalities.image.encoder",
            model: ("backbone", "model."),
            "lm_head.": ("backbone", "lm_head."),
        },
        preset=("model=infinitevl_4b",),
    )


FORMATS = (
    text("model."),
    text("model.language_model."),
    whole("model.", "visual."),
    whole("model.language_model.", "model.visual."),
)
