"""RWKV language models in the layout of the published `.pth` files (BlinkDL's names)."""

import torch
from torch import Tensor, nn

from mmrnn.weights.format import Format

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


def join_states(tensors: dict[str, Tensor], module: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    """State-tuned files keep one start state a layer, (value, key); ours are one tensor, (key, value)."""
    starts = sorted((name for name in tensors if name.startswith("start.")), key=lambda name: int(name[6:]))
    if not starts or not hasattr(module, "start"):
        return tensors
    stacked = torch.stack([tensors[name].transpose(-1, -2) for name in starts])
    notes.append(f"{len(starts)} learned start states turned from (value, key) to (key, value)")
    return {name: value for name, value in tensors.items() if name not in starts} | {"start": stacked}


FORMATS = (
    Format("rwkv5", "RWKV5", ("blocks.0.att.time_mix_g", "blocks.0.att.time_faaaa"), RWKV5_NAMES, adapt=join_states),
    Format("rwkv6", "RWKV6", ("blocks.0.att.time_maa_x",), RWKV6_NAMES, adapt=join_states),
)
