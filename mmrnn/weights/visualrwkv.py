"""Released VisualRWKV checkpoints: one file that holds the language model, the projection and the tower."""

from mmrnn.weights.format import Format

PARTS = {"proj.": "senses.image.connector", "vit.": "senses.image.encoder"}

FORMATS = (
    Format(
        "visualrwkv",
        "VLM",
        marks=("rwkv.emb.weight", "proj.weight"),
        routes={"rwkv.": "backbone", **PARTS},
    ),
    Format(
        "visualrwkv_mlp",
        "VLM",
        marks=("rwkv.emb.weight", "proj.o_proj.weight"),
        routes={"rwkv.": "backbone", **PARTS},
    ),
)
