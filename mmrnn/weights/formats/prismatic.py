"""Whole Prismatic VLMs and Cobra: two towers, a projection, and a Llama or a Mamba."""

from mmrnn.encoders import FusedEncoder
from mmrnn.weights.format import Format
from mmrnn.weights.formats.ignored import CONNECTOR, LANGUAGE

TOWERS = ("dino_featurizer.", "siglip_featurizer.")
"""Prefixes of the towers, in the order of their channels."""

PARTS = {
    "vision_backbone.": ("modalities.image.encoder", "vision_backbone."),
    "projector.": "modalities.image.connector",
    "llm_backbone.llm.": "backbone",
}
PROJECTOR = "projector.projector.0.weight"

FORMATS = (
    Format("prismatic", None, signature=("llm_backbone.llm.model.embed_tokens.weight", PROJECTOR), submodules=PARTS),
    Format(
        "cobra",
        None,
        signature=("llm_backbone.llm.backbone.embedding.weight", PROJECTOR),
        submodules=PARTS,
        preset=("model=cobra_3b",),
    ),
    Format(
        "prismatic",
        FusedEncoder,
        signature=tuple(f"vision_backbone.{name}patch_embed.proj.weight" for name in TOWERS),
        ignored={"projector.*": CONNECTOR, "llm_backbone.*": LANGUAGE},
        submodules={f"vision_backbone.{name}": f"towers.{index}" for index, name in enumerate(TOWERS)},
    ),
)
