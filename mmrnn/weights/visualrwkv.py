"""Released VisualRWKV checkpoints: language model, projection and tower in one file, or (v5) in a pair of files."""

from mmrnn.weights.format import Format

PARTS = {"proj.": "senses.image.connector", "vit.": "senses.image.encoder"}
THREE = ("dino_featurizer.", "siglip_featurizer.", "sam_featurizer.")
"""Of -HD and of VisualRWKV-7, in the order of their channels."""


def _gated(mark: str, preset: str) -> Format:
    """A file with a gated projection; what its tower is its names of `vit.` say."""
    marks = ("rwkv.emb.weight", "proj.o_proj.weight", mark)
    return Format("visualrwkv_mlp", "VLM", marks, routes={"rwkv.": "backbone", **PARTS}, preset=preset)


FORMATS = (
    Format(
        "visualrwkv",
        "VLM",
        marks=("rwkv.emb.weight", "proj.weight"),
        routes={"rwkv.": "backbone", **PARTS},
        preset="visualrwkv6_1b6",
    ),
    _gated("proj.proj.weight", "visualrwkv_hd_1b6"),
    _gated("proj.ln_v.weight", "visualrwkv7_0b1"),
    Format(
        "visualrwkv5",
        "VLM",
        marks=("emb.weight", "proj.weight", "vit.vision_model.pre_layrnorm.weight"),
        routes={**PARTS, "": "backbone"},
        preset="visualrwkv5_1b5",
    ),
    # The visual file of such a pair, for a sense alone.
    Format(
        "visualrwkv5",
        "Sense",
        marks=("proj.weight", "vit.vision_model.pre_layrnorm.weight"),
        routes={"proj.": "connector", "vit.": "encoder"},
    ),
    Format(
        "visualrwkv",
        "Fused",
        marks=tuple(f"{name}patch_embed.proj.weight" for name in THREE),
        routes={name: f"towers.{index}" for index, name in enumerate(THREE)},
    ),
    Format(
        "prismatic",
        "Fused",
        marks=tuple(f"vision_backbone.{name}patch_embed.proj.weight" for name in THREE[:2]),
        ignored={"projector.*": "of the connector", "llm_backbone.*": "of the language model"},
        routes={f"vision_backbone.{name}": f"towers.{index}" for index, name in enumerate(THREE[:2])},
    ),
)
