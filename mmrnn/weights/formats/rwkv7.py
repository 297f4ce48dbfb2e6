"""RWKV-7 under the names of the published `.pth` files (BlinkDL)."""

import re
from collections.abc import Mapping
from typing import Any

from mmrnn.backbones import RWKV7
from mmrnn.weights.format import Format, Shapes, Sizes, Tensors
from mmrnn.weights.formats.rwkv import COMMON, join_states, split_states

TIME_MIX = {
    **{f"x_{name}": f"lerp_{name}" for name in "rwkvag"},
    "w0": "decay",
    "w1": "decay_down",
    "w2": "decay_up",
    "a0": "rate",
    "a1": "rate_down",
    "a2": "rate_up",
    "v0": "residual",
    "v1": "residual_down",
    "v2": "residual_up",
    "g1": "gate_down",
    "g2": "gate_up",
    "k_k": "removal",
    "k_a": "replacement",
    "r_k": "bonus",
}

ABSENT = ("att.time_decay", "att.time_faaaa", "att.gate.weight", "ffn.receptance.weight")
"""Suffixes of tensors that RWKV-5 and RWKV-6 have and RWKV-7 has not."""

NAMES = {
    **{theirs: ours for theirs, ours in COMMON.items() if not theirs.endswith(ABSENT)},
    **{f"blocks.{{}}.att.{theirs}": f"blocks.{{}}.time_mix.{ours}" for theirs, ours in TIME_MIX.items()},
    "blocks.{}.ffn.x_k": "blocks.{}.channel_mix.lerp_k",
}

UNUSED = dict.fromkeys(
    (f"blocks.0.att.{name}" for name in ("v0", "v1", "v2")),
    "unused: the first layer has no value residual",
)

VECTOR = re.compile(r"\.(lerp_[rwkvag]|decay|rate|residual|removal|replacement)$")


def inverse(tensors: Tensors) -> Tensors:
    """Publish vectors as (1, 1, d) and one start state per layer."""
    split = split_states(tensors)
    return {name: value.view(1, 1, -1) if VECTOR.search(name) else value for name, value in split.items()}


def infer(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes from the shapes, which determine all but the dropout. A model of one layer has no value residual."""
    vocab, width = shapes["emb.weight"]
    heads, head_size = shapes["blocks.0.att.r_k"]
    knobs = {
        "vocab": vocab,
        "width": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        "head_size": head_size,
        "heads": heads,
        "ffn": shapes["blocks.0.ffn.key.weight"][0],
        "decay_rank": shapes["blocks.0.att.w1"][1],
        "rate_rank": shapes["blocks.0.att.a1"][1],
        "gate_rank": shapes["blocks.0.att.g1"][1],
        "learned_state": "blocks.0.att.time_state" in shapes,
    }
    if "blocks.1.att.v1" in shapes:
        knobs["residual_rank"] = shapes["blocks.1.att.v1"][1]
    return Sizes(knobs)


FORMATS = (
    Format(
        "rwkv7",
        RWKV7,
        ("blocks.0.att.r_k", "blocks.0.att.k_k"),
        NAMES,
        UNUSED,
        adapt=join_states,
        inverse=inverse,
        infer=infer,
    ),
)
