"""RWKV language models in the layout of the published `.pth` files (BlinkDL's names)."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Size, Tensor, nn

from mmrnn.weights.format import Format, Sizes

Tensors = dict[str, Tensor]
Shapes = Mapping[str, Size]

COMMON = {
    "emb.weight": "embedding.weight",
    "blocks.{}.ln0.*": "blocks.{}.norm_in.*",
    "blocks.{}.ln1.*": "blocks.{}.norm_time.*",
    "blocks.{}.ln2.*": "blocks.{}.norm_channel.*",
    "blocks.{}.att.receptance.weight": "blocks.{}.time_mix.receptance.weight",
    "blocks.{}.att.key.weight": "blocks.{}.time_mix.key.weight",
    "blocks.{}.att.value.weight": "blocks.{}.time_mix.value.weight",
    "blocks.{}.att.gate.weight": "blocks.{}.time_mix.gate.weight",
    "blocks.{}.att.output.weight": "blocks.{}.time_mix.output.weight",
    "blocks.{}.att.ln_x.*": "blocks.{}.time_mix.norm.*",
    "blocks.{}.att.time_decay": "blocks.{}.time_mix.decay",
    "blocks.{}.att.time_faaaa": "blocks.{}.time_mix.bonus",
    "blocks.{}.att.time_state": "start.{}",
    "blocks.{}.ffn.key.weight": "blocks.{}.channel_mix.key.weight",
    "blocks.{}.ffn.receptance.weight": "blocks.{}.channel_mix.receptance.weight",
    "blocks.{}.ffn.value.weight": "blocks.{}.channel_mix.value.weight",
    "ln_out.*": "norm.*",
    "head.weight": "output.weight",
}

RWKV5_NAMES = COMMON | {
    "blocks.{}.att.time_first": "blocks.{}.time_mix.log_bonus",  # of RWKV-5.0 and 5.1
    "blocks.{}.att.time_mix_k": "blocks.{}.time_mix.lerp_k",
    "blocks.{}.att.time_mix_v": "blocks.{}.time_mix.lerp_v",
    "blocks.{}.att.time_mix_r": "blocks.{}.time_mix.lerp_r",
    "blocks.{}.att.time_mix_g": "blocks.{}.time_mix.lerp_g",
    "blocks.{}.ffn.time_mix_k": "blocks.{}.channel_mix.lerp_k",
    "blocks.{}.ffn.time_mix_r": "blocks.{}.channel_mix.lerp_r",
}

RWKV6_NAMES = COMMON | {
    "blocks.{}.att.time_maa_x": "blocks.{}.time_mix.lerp_x",
    "blocks.{}.att.time_maa_w": "blocks.{}.time_mix.lerp_w",
    "blocks.{}.att.time_maa_k": "blocks.{}.time_mix.lerp_k",
    "blocks.{}.att.time_maa_v": "blocks.{}.time_mix.lerp_v",
    "blocks.{}.att.time_maa_r": "blocks.{}.time_mix.lerp_r",
    "blocks.{}.att.time_maa_g": "blocks.{}.time_mix.lerp_g",
    "blocks.{}.att.time_maa_w1": "blocks.{}.time_mix.lerp_down",
    "blocks.{}.att.time_maa_w2": "blocks.{}.time_mix.lerp_up",
    "blocks.{}.att.time_decay_w1": "blocks.{}.time_mix.decay_down",
    "blocks.{}.att.time_decay_w2": "blocks.{}.time_mix.decay_up",
    "blocks.{}.ffn.time_maa_k": "blocks.{}.channel_mix.lerp_k",
    "blocks.{}.ffn.time_maa_r": "blocks.{}.channel_mix.lerp_r",
}


VECTOR = re.compile(r"lerp_[xwkvrg]$")


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Bring what older files and state-tuned ones have into the form of ours."""
    return join_states(spread(tensors, module, notes), module, notes)


def spread(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """One decay and one bonus a head (RWKV-5.0, 5.1), for every channel of the head."""
    spreaded, heads = {}, 0
    for name, value in tensors.items():
        if name.endswith(".log_bonus"):
            name, value = name.replace("log_bonus", "bonus"), value.float().exp()
        if name.endswith((".time_mix.decay", ".time_mix.bonus")) and hasattr(module, "blocks"):
            mix = module.blocks[0].time_mix
            if value.numel() == mix.heads < mix.bonus.numel():
                heads += 1
                value = value.reshape(mix.heads, 1).expand(mix.heads, mix.head_size)
        spreaded[name] = value
    if heads:
        notes.append(f"{heads} decays and bonuses of whole heads were given to every channel (RWKV-5.0 and 5.1)")
    return spreaded


def join_states(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """State-tuned files keep one start state a layer, (value, key); ours are one tensor, (key, value)."""
    starts = sorted((name for name in tensors if name.startswith("start.")), key=lambda name: int(name[6:]))
    if not starts or not hasattr(module, "start"):
        return tensors
    stacked = torch.stack([tensors[name].transpose(-1, -2) for name in starts])
    notes.append(f"{len(starts)} learned start states turned from (value, key) to (key, value)")
    return {name: value for name, value in tensors.items() if name not in starts} | {"start": stacked}


def split_states(tensors: Tensors) -> Tensors:
    """The way back of `join_states`."""
    own = {name: value for name, value in tensors.items() if name != "start"}
    starts = tensors.get("start", ())
    return own | {f"start.{layer}": one.transpose(-1, -2) for layer, one in enumerate(starts)}


def inverse(tensors: Tensors) -> Tensors:
    """Vectors as (1, 1, d), a start state for each layer."""
    vectors = {name for name in tensors if VECTOR.search(name) or (name.endswith(".decay") and tensors[name].ndim == 1)}
    return {name: value.view(1, 1, -1) if name in vectors else value for name, value in split_states(tensors).items()}


def infer(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    """Everything but the dropout is in the shapes."""
    vocab, width = shapes["emb.weight"]
    depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    inner = shapes["blocks.0.att.key.weight"][0]
    per_head = shapes.get("blocks.0.att.time_faaaa", shapes.get("blocks.0.att.time_first"))
    heads = per_head[0]
    knobs = {"vocab": vocab, "width": width, "depth": depth, "head_size": inner // heads, "heads": heads}
    knobs["ffn"] = shapes["blocks.0.ffn.key.weight"][0]
    if "blocks.0.att.time_maa_w2" in shapes:
        knobs["mix_rank"] = shapes["blocks.0.att.time_maa_w2"][1]
        knobs["decay_rank"] = shapes["blocks.0.att.time_decay_w1"][1]
    else:
        knobs["gate"] = "blocks.0.att.gate.weight" in shapes
    knobs["learned_state"] = "blocks.0.att.time_state" in shapes
    return Sizes(knobs)


FORMATS = (
    Format(
        "rwkv5",
        "RWKV5",
        ("blocks.0.att.time_mix_k", "blocks.0.att.ln_x.weight"),
        RWKV5_NAMES,
        adapt=adapt,
        inverse=inverse,
        infer=infer,
    ),
    Format("rwkv6", "RWKV6", ("blocks.0.att.time_maa_x",), RWKV6_NAMES, adapt=adapt, inverse=inverse, infer=infer),
)
