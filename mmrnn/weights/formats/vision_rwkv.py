"""VisualRWKV v7.10: vision encoder, second channel mix, and the whole model."""

from mmrnn.backbones import VisualChannelMix
from mmrnn.encoders import RecurrentEncoder
from mmrnn.weights.format import Format
from mmrnn.weights.formats.ignored import HEAD
from mmrnn.weights.formats.rwkv7 import NAMES
from mmrnn.weights.formats.token_compressor import inverse, keep

MIX, NORM = "rwkv.blocks.{}.ffn_v.", "rwkv.blocks.{}.ln_v."

FORMATS = (
    Format(
        "visualrwkv_v710",
        None,
        signature=("rwkv.emb.weight", "vrwkv.emb.weight", "rwkv.blocks.0.ffn_v.x_k"),
        submodules={
            MIX: ("hook", "blocks.{}.ffn_v."),
            NORM: ("hook", "blocks.{}.ln_v."),
            "rwkv.": "backbone",
            "vrwkv.": "modalities.image.encoder",
        },
        preset=("model=visualrwkv710_0b1",),
    ),
    Format(
        "visualrwkv_v710",
        RecurrentEncoder,
        signature=("emb.bias", "blocks.0.att.r_k", "ln_out.weight"),
        names={
            "emb.*": "tower.proj.*",
            **{name: f"blocks.{ours}" for name, ours in NAMES.items() if name.startswith(("blocks.", "ln_out."))},
        },
        ignored={
            "head.*": HEAD,
            **dict.fromkeys(
                (f"blocks.0.att.{name}" for name in ("v0", "v1", "v2")),
                "unused: the first layer has no value residual",
            ),
        },
        adapt=keep,
        inverse=inverse,
    ),
    Format(
        "visualrwkv_v710",
        VisualChannelMix,
        signature=("blocks.0.ffn_v.x_k", "blocks.0.ln_v.weight"),
        names={
            "blocks.{}.ln_v.*": "layers.{}.mlp_norm.*",
            "blocks.{}.ffn_v.x_k": "layers.{}.mlp.lerp_k",
            "blocks.{}.ffn_v.key.weight": "layers.{}.mlp.key.weight",
            "blocks.{}.ffn_v.value.weight": "layers.{}.mlp.value.weight",
        },
        adapt=keep,
        inverse=inverse,
    ),
)
