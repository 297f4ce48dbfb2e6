"""LLaVA checkpoints: language model, projection and (in most of them) tower, in the layouts of the project and of
Hugging Face.
"""

from mmrnn.weights.format import Format, Route

CONNECTOR, ENCODER = "modalities.image.connector", "modalities.image.encoder"


def _llava(projection: str) -> Format:
    routes: dict[str, Route] = {"model.mm_projector.": CONNECTOR, "model.vision_tower.": ENCODER}
    # A tower beside it: the files of LLaVA leave it out where it was not trained.
    routes |= {"vision_model.": (ENCODER, "vision_model."), "": "backbone"}
    signature = ("model.embed_tokens.weight", f"model.mm_projector.{projection}")
    return Format("llava", "VLM", signature, routes=routes, preset=("model=llava15_7b",))


TOWER, LOSS = "model.vision_tower.", "of a training loss"

EVE = Format(
    "eve",
    "VLM",
    signature=("model.embed_tokens.weight", "model.mm_projector.0.weight", f"{TOWER}split_embedding"),
    ignored={"model.vision_tower_compressor.*": LOSS, "model.vision_clip.*": LOSS},
    routes={"model.mm_projector.": CONNECTOR, TOWER: (ENCODER, TOWER), "": "backbone"},
    preset=("model=eve_7b",),
)
"""Laid out like LLaVA; its patch embedding stands where LLaVA has its tower."""

VILA15 = Format(
    "vila15",
    "VLM",
    signature=("llm.model.embed_tokens.weight", "mm_projector.layers.2.weight"),
    routes={"llm.": "backbone", "mm_projector.": CONNECTOR, "vision_tower.": ENCODER},
    preset=("model=vila15_8b",),
)
"""Three folders: `files.read` puts the name of its folder before that of a tensor."""


FORMATS = (
    _llava("0.weight"),
    _llava("weight"),
    EVE,
    VILA15,
    Format(
        "llava_hf",
        "VLM",
        signature=("language_model.model.embed_tokens.weight", "multi_modal_projector.linear_1.weight"),
        routes={
            "language_model.": "backbone",
            "multi_modal_projector.": (CONNECTOR, "multi_modal_projector."),
            "vision_tower.": ENCODER,
        },
        preset=("model=llava15_7b",),
    ),
    Format(
        "llava_hf5",
        "VLM",
        signature=("model.language_model.embed_tokens.weight", "model.multi_modal_projector.linear_1.weight"),
        routes={
            "model.language_model.": ("backbone", "model."),
            "lm_head.": ("backbone", "lm_head."),
            "model.multi_modal_projector.": (CONNECTOR, "model.multi_modal_projector."),
            "model.vision_tower.": ENCODER,
        },
        preset=("model=llava15_7b",),
    ),
)
