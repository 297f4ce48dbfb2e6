"""RWKV-7 language models in the layout of the published `.pth` files (BlinkDL's names)."""

import re
from collections.abc import Mapping
from typing import Any

from mmrnn.weights.format import Format, Sizes
from mmrnn.weights.formats.rwkv import COMMON, Shapes, Tensors, join_states, split_states

ATT = {
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
"""What earlier versions had; RWKV-7 has other tensors in the place of some of them."""

NAMES = {
    **{theirs: ours for theirs, ours in COMMON.items() if not theirs.endswith(ABSENT)},
    **{f"blocks.{{}}.att.{theirs}": f"blocks.{{}}.time_mix.{ours}" for theirs, ours in ATT.items()},
    "blocks.{}.ffn.x_k": "blocks.{}.channel_mix.lerp_k",
}

UNUSED = dict.fromkeys(
    (f"blocks.0.att.{name}" for name in ("v0", "v1", "v2")),
    "the first layer has no earlier values to mix with its own; RWKV-LM writes it all the same",
)

VECTOR = re.compile(r"\.(lerp_[rwkvag]|decay|rate|residual|removal|replacement)$")


def inverse(tensors: Tensors) -> Tensors:
    """Vectors as (1, 1, d), a start state for each layer."""
    own = split_states(tensors)
    return {name: value.view(1, 1, -1) if VECTOR.search(name) else value for name, value in own.items()}


def infer(shapes: Shapes, facts: Mapping[str, Any]) -> Sizes:
    """Everything but the dropout is in the shapes. One layer has no earlier values, and no rank to mix them."""
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
        "RWKV7",
        ("blocks.0.att.r_k", "blocks.0.att.k_k"),
        NAMES,
        UNUSED,
        adapt=join_states,
        inverse=inverse,
        infer=infer,
    ),
)
