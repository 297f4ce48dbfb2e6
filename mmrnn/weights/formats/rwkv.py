"""RWKV-5 and RWKV-6 under the names of the published `.pth` files (BlinkDL)."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmrnn.backbones import RWKV5, RWKV6
from mmrnn.weights.format import Format, Shapes, Sizes, Tensors

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


HF_WORDS = {
    "emb.": "embeddings.",
    ".ln0.": ".pre_ln.",
    ".att.": ".attention.",
    ".ffn.": ".feed_forward.",
    **{f".time_mix_{word[0]}": f".time_mix_{word}" for word in ("key", "value", "receptance", "gate")},
}
"""Words of BlinkDL's names -> of the RWKV repositories of the hub (RWKV/rwkv-5-world, RWKV/v6-Finch)."""


VECTOR = re.compile(r"lerp_[xwkvrg]$")
"""Names of tensors that are published as (1, 1, d)."""

START = "start."
"""Prefix of the start states, one a layer."""


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Bring RWKV-5.0, RWKV-5.1 and state-tuned checkpoints to the shapes of the module."""
    return join_states(expand_heads(tensors, module, notes), module, notes)


def expand_heads(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Expand one decay and one bonus per head (RWKV-5.0, 5.1) to every channel of the head."""
    target, expanded, count = module.state_dict(), {}, 0
    for name, value in tensors.items():
        if name.endswith(".log_bonus"):
            name, value = name.replace("log_bonus", "bonus"), value.float().exp()
        if name.endswith((".time_mix.decay", ".time_mix.bonus")) and name in target:
            heads, head_size = target["blocks.0.time_mix.bonus"].shape
            if value.numel() == heads < heads * head_size:
                count += 1
                value = value.reshape(heads, 1).expand(heads, head_size)
        expanded[name] = value
    if count:
        notes.append(f"{count} decays and bonuses per head were expanded to every channel (RWKV-5.0 and 5.1)")
    return expanded


def join_states(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Join the start states of a state-tuned checkpoint, (value, key) per layer, to one tensor (layer, key, value)."""
    starts = sorted((name for name in tensors if name.startswith(START)), key=lambda name: int(name[len(START) :]))
    if not starts or "start" not in module.state_dict():
        return tensors
    stacked = torch.stack([tensors[name].transpose(-1, -2) for name in starts])
    notes.append(f"{len(starts)} learned start states were transposed from (value, key) to (key, value)")
    return {name: value for name, value in tensors.items() if name not in starts} | {"start": stacked}


def split_states(tensors: Tensors) -> Tensors:
    """Undo `join_states`."""
    others = {name: value for name, value in tensors.items() if name != "start"}
    starts = tensors.get("start", ())
    return others | {f"{START}{layer}": state.transpose(-1, -2) for layer, state in enumerate(starts)}


def inverse(tensors: Tensors) -> Tensors:
    """Publish vectors as (1, 1, d) and one start state per layer."""
    vectors = {name for name in tensors if VECTOR.search(name) or (name.endswith(".decay") and tensors[name].ndim == 1)}
    return {name: value.view(1, 1, -1) if name in vectors else value for name, value in split_states(tensors).items()}


def infer(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes from the shapes, which determine all but the dropout."""
    vocab, width = shapes["emb.weight"]
    depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    inner = shapes["blocks.0.att.key.weight"][0]
    bonus = shapes.get("blocks.0.att.time_faaaa", shapes.get("blocks.0.att.time_first"))
    heads = bonus[0]
    knobs = {"vocab": vocab, "width": width, "depth": depth, "head_size": inner // heads, "heads": heads}
    knobs["ffn"] = shapes["blocks.0.ffn.key.weight"][0]
    if "blocks.0.att.time_maa_w2" in shapes:
        knobs["mix_rank"] = shapes["blocks.0.att.time_maa_w2"][1]
        knobs["decay_rank"] = shapes["blocks.0.att.time_decay_w1"][1]
    else:
        knobs["gate"] = "blocks.0.att.gate.weight" in shapes
    knobs["learned_state"] = "blocks.0.att.time_state" in shapes
    return Sizes(knobs)


def hf_name(name: str) -> str:
    """Name of a tensor in the code that the RWKV repositories of the hub bring for transformers."""
    for theirs, hf in HF_WORDS.items():
        name = name.replace(theirs, hf)
    return name if name.startswith("head.") else f"rwkv.{name}"


def hf(name: str, part: type, keys: tuple[str, ...], original: Mapping[str, str]) -> Format:
    """Format of the hub's RWKV-5 or RWKV-6; `keys` name the version, `original` are BlinkDL's names."""
    hf_names = {hf_name(theirs): theirs for theirs in original if not theirs.endswith(("time_state", "time_first"))}
    to_original = Format("original", None, (), names=hf_names)

    def infer_hf(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
        renamed = {to_original.rename(theirs): shape for theirs, shape in shapes.items()}
        return infer({theirs: shape for theirs, shape in renamed.items() if theirs is not None}, metadata)

    names = {theirs: original[blinkdl] for theirs, blinkdl in hf_names.items()}
    signature = tuple(f"rwkv.blocks.0.attention.{key}" for key in keys)
    return Format(name, part, signature, names, adapt=adapt, inverse=inverse, infer=infer_hf)


FORMATS = (
    Format(
        "rwkv5",
        RWKV5,
        ("blocks.0.att.time_mix_k", "blocks.0.att.ln_x.weight"),
        RWKV5_NAMES,
        adapt=adapt,
        inverse=inverse,
        infer=infer,
    ),
    Format("rwkv6", RWKV6, ("blocks.0.att.time_maa_x",), RWKV6_NAMES, adapt=adapt, inverse=inverse, infer=infer),
    hf("hf_rwkv5", RWKV5, ("time_mix_key", "time_faaaa", "ln_x.weight"), RWKV5_NAMES),
    hf("hf_rwkv6", RWKV6, ("time_maa_x",), RWKV6_NAMES),
)
