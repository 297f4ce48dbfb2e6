"""RWKV-6 and RWKV-7 under the names of flash-linear-attention (fla), which the hub has most RWKV-7 models in."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmrnn.backbones import RWKV6, RWKV7
from mmrnn.weights.format import Adapt, Format, Inverse, Shapes, Sizes, Tensors
from mmrnn.weights.formats.connector_sizes import by_our_names

LAYER = "model.layers.{}"
COMMON = {
    "model.embeddings.weight": "embedding.weight",
    f"{LAYER}.pre_norm.*": "blocks.{}.norm_in.*",
    f"{LAYER}.attn_norm.*": "blocks.{}.norm_time.*",
    f"{LAYER}.ffn_norm.*": "blocks.{}.norm_channel.*",
    f"{LAYER}.attn.g_norm.*": "blocks.{}.time_mix.norm.*",
    f"{LAYER}.attn.o_proj.weight": "blocks.{}.time_mix.output.weight",
    f"{LAYER}.ffn.value.weight": "blocks.{}.channel_mix.value.weight",
    "model.norm.*": "norm.*",
    "lm_head.weight": "output.weight",
}
PROJECTIONS = {"r": "receptance", "k": "key", "v": "value"}

RWKV6_NAMES = COMMON | {
    **{
        f"{LAYER}.attn.{x}_proj.linear.weight": f"blocks.{{}}.time_mix.{ours}.weight" for x, ours in PROJECTIONS.items()
    },
    f"{LAYER}.attn.g_proj.linear.weight": "blocks.{}.time_mix.gate.weight",
    f"{LAYER}.attn.x_proj.0.mu": "blocks.{}.time_mix.lerp_x",
    f"{LAYER}.attn.x_proj.0.linear.weight": "blocks.{}.time_mix.lerp_down",
    f"{LAYER}.attn.x_proj.2.weight": "blocks.{}.time_mix.lerp_up",
    f"{LAYER}.attn.x_bias": "blocks.{}.time_mix.lerp",
    f"{LAYER}.attn.w_proj.linear.lora.0.weight": "blocks.{}.time_mix.decay_down",
    f"{LAYER}.attn.w_proj.linear.lora.2.weight": "blocks.{}.time_mix.decay_up",
    f"{LAYER}.attn.w_proj.linear.lora.2.bias": "blocks.{}.time_mix.decay",
    f"{LAYER}.attn.bonus": "blocks.{}.time_mix.bonus",
    f"{LAYER}.ffn.key.mu": "blocks.{}.channel_mix.lerp_k",
    f"{LAYER}.ffn.key.linear.weight": "blocks.{}.channel_mix.key.weight",
    f"{LAYER}.ffn.receptance.mu": "blocks.{}.channel_mix.lerp_r",
    f"{LAYER}.ffn.receptance.linear.weight": "blocks.{}.channel_mix.receptance.weight",
}

LOW_RANK = {"w": "decay", "a": "rate", "v": "residual", "g": "gate"}
RWKV7_NAMES = COMMON | {
    **{f"{LAYER}.attn.{x}_proj.weight": f"blocks.{{}}.time_mix.{ours}.weight" for x, ours in PROJECTIONS.items()},
    **{f"{LAYER}.attn.x_{x}": f"blocks.{{}}.time_mix.lerp_{x}" for x in "rwkvag"},
    f"{LAYER}.attn.x_x": "blocks.{}.time_mix.lerp",  # of fla before 2025: all six in one
    **{f"{LAYER}.attn.{x}_lora.lora.0.weight": f"blocks.{{}}.time_mix.{ours}_down" for x, ours in LOW_RANK.items()},
    **{f"{LAYER}.attn.{x}_lora.lora.2.weight": f"blocks.{{}}.time_mix.{ours}_up" for x, ours in LOW_RANK.items()},
    **{f"{LAYER}.attn.{x}_lora.lora.2.bias": f"blocks.{{}}.time_mix.{LOW_RANK[x]}" for x in "wav"},
    f"{LAYER}.attn.k_k": "blocks.{}.time_mix.removal",
    f"{LAYER}.attn.k_a": "blocks.{}.time_mix.replacement",
    f"{LAYER}.attn.r_k": "blocks.{}.time_mix.bonus",
    f"{LAYER}.ffn.x_k": "blocks.{}.channel_mix.lerp_k",
    f"{LAYER}.ffn.key.weight": "blocks.{}.channel_mix.key.weight",
}

TRANSPOSED = re.compile(r"\.time_mix\.(decay|rate|residual|gate)_(down|up)$")
"""Low-rank matrices, which fla stores as weights of linear layers: (out, in)."""

TOGETHER = re.compile(r"\.time_mix\.lerp$")
"""Shift weights of all mixtures in one tensor (mixtures, d)."""

MIXTURE = re.compile(r"(.+\.time_mix\.lerp)_[rwkvg]")

THEIR_ORDER, OUR_ORDER = "rwkvg", "wkvrg"
"""Mixtures of the data-dependent token shift of RWKV-6, in the low-rank matrices of fla and of BlinkDL."""


def adapt6(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Transpose the low-rank matrices, and bring those of the token shift to the order of BlinkDL."""
    order, adapted = [THEIR_ORDER.index(x) for x in OUR_ORDER], {}
    for name, value in tensors.items():
        if TOGETHER.search(name):
            adapted |= {f"{name}_{x}": row for x, row in zip(THEIR_ORDER, value, strict=True)}
        elif name.endswith(".lerp_down"):
            adapted[name] = value.unflatten(0, (5, -1))[order].flatten(0, 1).T  # d, 5 r
        elif name.endswith(".lerp_up"):
            adapted[name] = value.unflatten(1, (5, -1))[:, order].permute(1, 2, 0)  # 5, r, d
        else:
            adapted[name] = value.T if TRANSPOSED.search(name) else value
    notes.append("the group norm of fla has eps 1e-5, that of RWKV-6 64e-5: logits differ from those in fla")
    return adapted


def inverse6(tensors: Tensors) -> Tensors:
    """Undo `adapt6`."""
    order, published = [OUR_ORDER.index(x) for x in THEIR_ORDER], {}
    for name, value in tensors.items():
        if single := MIXTURE.fullmatch(name):
            published[single[1]] = torch.stack([tensors[f"{single[1]}_{x}"] for x in THEIR_ORDER])
        elif name.endswith(".lerp_down"):
            published[name] = value.T.unflatten(0, (5, -1))[order].flatten(0, 1)
        elif name.endswith(".lerp_up"):
            published[name] = value.permute(2, 0, 1)[:, order].flatten(1)
        else:
            published[name] = value.T if TRANSPOSED.search(name) else value
    return published


def adapt7(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Transpose the low-rank matrices, and split the shift weights of old files."""
    adapted: Tensors = {}
    for name, value in tensors.items():
        if TOGETHER.search(name):
            adapted |= {f"{name}_{x}": row for x, row in zip("rwkvag", value, strict=True)}
        else:
            adapted[name] = value.T if TRANSPOSED.search(name) else value
    return adapted


def inverse7(tensors: Tensors) -> Tensors:
    """Transpose the low-rank matrices, and publish the shift weights of the time mix as (1, 1, d)."""
    published = {name: value.T if TRANSPOSED.search(name) else value for name, value in tensors.items()}
    shifts = [name for name in published if ".time_mix.lerp_" in name]
    return published | {name: published[name].view(1, 1, -1) for name in shifts}


def infer(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes of an RWKV-6 or RWKV-7, from the shapes under our names (matrices as fla has them)."""
    vocab, width = shapes["embedding.weight"]
    heads, head_size = shapes["blocks.0.time_mix.bonus"]
    knobs = {
        "vocab": vocab,
        "width": width,
        "depth": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        "head_size": head_size,
        "heads": heads,
        "ffn": shapes["blocks.0.channel_mix.key.weight"][0],
        "decay_rank": shapes["blocks.0.time_mix.decay_down"][0],
    }
    if "blocks.0.time_mix.lerp_down" in shapes:
        return Sizes({**knobs, "mix_rank": shapes["blocks.0.time_mix.lerp_down"][0] // 5})
    knobs["rate_rank"] = shapes["blocks.0.time_mix.rate_down"][0]
    knobs["gate_rank"] = shapes["blocks.0.time_mix.gate_down"][0]
    if "blocks.1.time_mix.residual_down" in shapes:
        knobs["residual_rank"] = shapes["blocks.1.time_mix.residual_down"][0]
    return Sizes(knobs)


def language(part: type, key: str, names: Mapping[str, str], adapt: Adapt, inverse: Inverse) -> Format:
    """Format of a language model of fla; `key` names its version."""
    form = Format(
        "fla",
        part,
        signature=("model.embeddings.weight", f"model.layers.0.attn.{key}"),
        names=names,
        adapt=adapt,
        inverse=inverse,
    )
    return by_our_names(form, infer)


FORMATS = (
    language(RWKV6, "x_proj.0.mu", RWKV6_NAMES, adapt6, inverse6),
    language(RWKV7, "r_k", RWKV7_NAMES, adapt7, inverse7),
)
