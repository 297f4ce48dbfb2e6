"""Released VisualRWKV checkpoints: one file that holds the language model, the projection and the tower."""

from mmrnn.weights.format import Format

FORMATS = (
    Format(
        "visualrwkv",
        "VLM",
        marks=("rwkv.emb.weight", "proj.weight"),
        routes={"rwkv.": "backbone", "proj.": "senses.image.connector", "vit.": "senses.image.encoder"},
    ),
)
