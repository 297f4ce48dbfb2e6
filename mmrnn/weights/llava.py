"""LLaVA checkpoints: language model, projection and (in most of them) tower, in the layouts of the project and of
Hugging Face."""

from mmrnn.weights.format import Format, Route

CONNECTOR, ENCODER = "senses.image.connector", "senses.image.encoder"


def _llava(projection: str) -> Format:
    routes: dict[str, Route] = {"model.mm_projector.": CONNECTOR, "model.vision_tower.": ENCODER}
    # A tower beside it: the files of LLaVA leave it out where it was not trained.
    routes |= {"vision_model.": (ENCODER, "vision_model."), "": "backbone"}
    marks = ("model.embed_tokens.weight", f"model.mm_projector.{projection}")
    return Format("llava", "VLM", marks, routes=routes, preset="llava15_7b")


FORMATS = (
    _llava("0.weight"),
    _llava("weight"),
    Format(
        "llava_hf",
        "VLM",
        marks=("language_model.model.embed_tokens.weight", "multi_modal_projector.linear_1.weight"),
        routes={
            "language_model.": "backbone",
            "multi_modal_projector.": (CONNECTOR, "multi_modal_projector."),
            "vision_tower.": ENCODER,
        },
        preset="llava15_7b",
    ),
    Format(
        "llava_hf5",
        "VLM",
        marks=("model.language_model.embed_tokens.weight", "model.multi_modal_projector.linear_1.weight"),
        routes={
            "model.language_model.": ("backbone", "model."),
            "lm_head.": ("backbone", "lm_head."),
            "model.multi_modal_projector.": (CONNECTOR, "model.multi_modal_projector."),
            "model.vision_tower.": ENCODER,
        },
        preset="llava15_7b",
    ),
)
