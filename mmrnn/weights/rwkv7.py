"""RWKV-7 language models in the layout of the published `.pth` files (BlinkDL's names)."""

from mmrnn.weights.format import Format
from mmrnn.weights.rwkv import COMMON, join_states

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

FORMATS = (Format("rwkv7", "RWKV7", ("blocks.0.att.r_k", "blocks.0.att.k_k"), NAMES, UNUSED, adapt=join_states),)
