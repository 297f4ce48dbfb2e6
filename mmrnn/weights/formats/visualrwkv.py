"""Whole VisualRWKV checkpoints: language model, projection and towers in one file, or (v5) in two."""

from mmrnn.backbones import TinyAttention
from mmrnn.encoders import FusedEncoder
from mmrnn.weights.format import Format, SubmodulePath

VISION: dict[str, SubmodulePath] = {"proj.": "modalities.image.connector", "vit.": "modalities.image.encoder"}
TINY = "blocks.{}.tiny_att."
"""Attention of the hybrid v5.2."""

WHOLE: dict[str, SubmodulePath] = {f"rwkv.{TINY}": "hook", "rwkv.": "backbone", **VISION}
EMBEDDING = "rwkv.emb.weight"
SIGLIP = "vit.vision_model.embeddings.patch_embedding.bias"
"""CLIP has no such bias."""


def gated(preset: str, *keys: str) -> Format:
    """Format of a model with a gated connector; `keys` are the tensors that identify gate and tower."""
    return Format(
        "visualrwkv_mlp", None, signature=(EMBEDDING, "proj.o_proj.weight", *keys), submodules=WHOLE, preset=(preset,)
    )


VTC = Format(
    "visualrwkv_vtc",
    None,
    signature=(EMBEDDING, "proj.o_proj.weight", "proj.ln_v.weight", "vtc.ln_out.weight", SIGLIP),
    submodules={
        **{prefix: ("modalities.image.connector", prefix) for prefix in ("proj.", "vtc.")},
        "rwkv.": "backbone",
        "vit.": "modalities.image.encoder",
    },
    preset=("model=visualrwkv73_0b1",),
)
"""v7.03 and v7.04: projection and compressor are one connector, where they keep their names."""

TOWERS = ("dino_featurizer.", "siglip_featurizer.", "sam_featurizer.")

FORMATS = (
    Format(
        "visualrwkv", None, signature=(EMBEDDING, "proj.weight"), submodules=WHOLE, preset=("model=visualrwkv6_1b6",)
    ),
    gated("model=visualrwkv_hd_1b6", "proj.proj.weight"),
    gated("model=visualrwkv7_0b1", "proj.ln_v.weight"),
    gated("model=visualrwkv71_0b1", "proj.ln_v.weight", SIGLIP),
    VTC,
    Format(
        "visualrwkv5",
        None,
        signature=("emb.weight", "proj.weight", "vit.vision_model.pre_layrnorm.weight"),
        submodules={**VISION, TINY: "hook", "": "backbone"},
        preset=("model=visualrwkv5_1b5",),
    ),
    # The visual file of v5, for a modality alone.
    Format(
        "visualrwkv5",
        None,
        signature=("proj.weight", "vit.vision_model.pre_layrnorm.weight"),
        submodules={"proj.": "connector", "vit.": "encoder"},
    ),
    Format(
        "visualrwkv",
        FusedEncoder,
        signature=tuple(f"{name}patch_embed.proj.weight" for name in TOWERS),
        submodules={name: f"towers.{index}" for index, name in enumerate(TOWERS)},
    ),
    Format(
        "visualrwkv",
        TinyAttention,
        signature=("tiny_q.weight", "tiny_o.weight"),
        names={
            "tiny_ln.*": "norm.*",
            "tiny_q.weight": "query.weight",
            "tiny_k.weight": "key.weight",
            "tiny_v.weight": "value.weight",
            "tiny_o.weight": "output.weight",
        },
    ),
)
