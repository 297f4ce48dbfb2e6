"""Prismatic VLMs as a whole: two towers, a projection and a Llama in one dictionary."""

from mmrnn.weights.format import Format

FORMATS = (
    Format(
        "prismatic",
        "VLM",
        marks=("llm_backbone.llm.model.embed_tokens.weight", "projector.projector.0.weight"),
        routes={
            "vision_backbone.": ("senses.image.encoder", "vision_backbone."),
            "projector.": "senses.image.connector",
            "llm_backbone.llm.": "backbone",
        },
    ),
)
