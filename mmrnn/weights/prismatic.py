"""Prismatic VLMs: two towers, a projection and a Llama in one dictionary. Its projections are in `connectors`."""

from mmrnn.weights.format import Format

ENCODER, CONNECTOR = "senses.image.encoder", "senses.image.connector"
TOWERS = ("vision_backbone.dino_featurizer.", "vision_backbone.siglip_featurizer.")

FORMATS = (
    Format(
        "prismatic",
        "VLM",
        marks=("llm_backbone.llm.model.embed_tokens.weight", "projector.projector.0.weight"),
        routes={
            "vision_backbone.": (ENCODER, "vision_backbone."),
            "projector.": CONNECTOR,
            "llm_backbone.llm.": "backbone",
        },
    ),
    Format(
        "prismatic",
        "Fused",
        marks=tuple(f"{tower}patch_embed.proj.weight" for tower in TOWERS),
        routes={tower: f"towers.{index}" for index, tower in enumerate(TOWERS)},
        ignored={"projector.*": "of the connector", "llm_backbone.*": "of the language model"},
    ),
)
