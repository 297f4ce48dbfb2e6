"""Released VisualRWKV checkpoints: language model, projection and towers in one file, or (v5) in a pair of files."""

from mmrnn.weights.format import Format, Route

PARTS: dict[str, Route] = {"proj.": "modalities.image.connector", "vit.": "modalities.image.encoder"}
TINY = "blocks.{}.tiny_att."
"""The one attention of the hybrid (v5.2)."""

WHOLE: dict[str, Route] = {f"rwkv.{TINY}": "hook", "rwkv.": "backbone", **PARTS}
LANGUAGE = "rwkv.emb.weight"


def gated(mark: str, preset: str) -> Format:
    """A projection behind or before a gate."""
    return Format(
        "visualrwkv_mlp", "VLM", signature=(LANGUAGE, "proj.o_proj.weight", mark), routes=WHOLE, preset=(preset,)
    )


THREE = ("dino_featurizer.", "siglip_featurizer.", "sam_featurizer.")

FORMATS = (
    Format("visualrwkv", "VLM", signature=(LANGUAGE, "proj.weight"), routes=WHOLE, preset=("model=visualrwkv6_1b6",)),
    gated("proj.proj.weight", "model=visualrwkv_hd_1b6"),
    gated("proj.ln_v.weight", "model=visualrwkv7_0b1"),
    Format(
        "visualrwkv5",
        "VLM",
        signature=("emb.weight", "proj.weight", "vit.vision_model.pre_layrnorm.weight"),
        routes={**PARTS, TINY: "hook", "": "backbone"},
        preset=("model=visualrwkv5_1b5",),
    ),
    # The visual file of such a pair, for a modality alone.
    Format(
        "visualrwkv5",
        "Modality",
        signature=("proj.weight", "vit.vision_model.pre_layrnorm.weight"),
        routes={"proj.": "connector", "vit.": "encoder"},
    ),
    Format(
        "visualrwkv",
        "FusedEncoder",
        signature=tuple(f"{name}patch_embed.proj.weight" for name in THREE),
        routes={name: f"towers.{index}" for index, name in enumerate(THREE)},
    ),
    Format(
        "visualrwkv",
        "TinyAttention",
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
