"""Released VisualRWKV checkpoints: language model, projection and tower in one file, or (v5) in a pair of files."""

from mmrnn.weights.format import Format

PARTS = {"proj.": "senses.image.connector", "vit.": "senses.image.encoder"}

FORMATS = (
    Format(
        "visualrwkv",
        "VLM",
        marks=("rwkv.emb.weight", "proj.weight"),
        routes={"rwkv.": "backbone", **PARTS},
        preset="visualrwkv6_1b6",
    ),
    Format(
        "visualrwkv_mlp",
        "VLM",
        marks=("rwkv.emb.weight", "proj.o_proj.weight"),
        routes={"rwkv.": "backbone", **PARTS},
    ),
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
)
