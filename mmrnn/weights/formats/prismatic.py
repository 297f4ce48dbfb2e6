"""Prismatic VLMs as a whole: two towers, a projection and a Llama in one dictionary."""

from mmrnn.weights.format import Format

TWO = ("dino_featurizer.", "siglip_featurizer.")
"""In the order of their channels."""

FORMATS = (
    Format(
        "prismatic",
        "VLM",
        signature=("llm_backbone.llm.model.embed_tokens.weight", "projector.projector.0.weight"),
        routes={
            "vision_backbone.": ("modalities.image.encoder", "vision_backbone."),
            "projector.": "modalities.image.connector",
            "llm_backbone.llm.": "backbone",
        },
    ),
    Format(
        "prismatic",
        "FusedEncoder",
        signature=tuple(f"vision_backbone.{name}patch_embed.proj.weight" for name in TWO),
        ignored={"projector.*": "of the connector", "llm_backbone.*": "of the language model"},
        routes={f"vision_backbone.{name}": f"towers.{index}" for index, name in enumerate(TWO)},
    ),
)
