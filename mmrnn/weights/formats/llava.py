"""Whole LLaVA, EVE and VILA-1.5 checkpoints: language model, projection and (in most of them) tower."""

from mmrnn.weights.format import Format, SubmodulePath
from mmrnn.weights.formats.ignored import LOSS

CONNECTOR, ENCODER = "modalities.image.connector", "modalities.image.encoder"


def _llava(projection: str) -> Format:
    submodules: dict[str, SubmodulePath] = {"model.mm_projector.": CONNECTOR, "model.vision_tower.": ENCODER}
    # A separate file of the tower: LLaVA leaves out a tower that was not trained.
    submodules |= {"vision_model.": (ENCODER, "vision_model."), "": "backbone"}
    signature = ("model.embed_tokens.weight", f"model.mm_projector.{projection}")
    return Format("llava", None, signature, submodules=submodules, preset=("model=llava15_7b",))


NEWLINE = "image_newline"
"""The token at the end of a row of tiles (LLaVA-1.6)."""


def _with_newline(name: str, projection: str, signature: str, others: dict[str, SubmodulePath]) -> Format:
    """Format of a model with tiles: projection and row end belong to the connector, under the names they have."""
    prefix, first = "" if name == "llava16_hf" else "model.", "0" if name == "llava16" else "linear_1"
    connector: dict[str, SubmodulePath] = {
        part: (CONNECTOR, part) for part in (f"{prefix}{NEWLINE}", f"{prefix}{projection}.")
    }
    return Format(
        name,
        None,
        signature=(signature, f"{prefix}{NEWLINE}", f"{prefix}{projection}.{first}.weight"),
        submodules={**connector, **others},
        preset=("model=llava16_7b",),
    )


LLAVA16 = (
    _with_newline(
        "llava16",
        "mm_projector",
        "model.embed_tokens.weight",
        {"model.vision_tower.": ENCODER, "vision_model.": (ENCODER, "vision_model."), "": "backbone"},
    ),
    _with_newline(
        "llava16_hf",
        "multi_modal_projector",
        "language_model.model.embed_tokens.weight",
        {"language_model.": "backbone", "vision_tower.": ENCODER},
    ),
    _with_newline(
        "llava16_hf5",
        "multi_modal_projector",
        "model.language_model.embed_tokens.weight",
        {
            "model.language_model.": ("backbone", "model."),
            "lm_head.": ("backbone", "lm_head."),
            "model.vision_tower.": ENCODER,
        },
    ),
)

TOWER = "model.vision_tower."

EVE = Format(
    "eve",
    None,
    signature=("model.embed_tokens.weight", "model.mm_projector.0.weight", f"{TOWER}split_embedding"),
    ignored={"model.vision_tower_compressor.*": LOSS, "model.vision_clip.*": LOSS},
    submodules={"model.mm_projector.": CONNECTOR, TOWER: (ENCODER, TOWER), "": "backbone"},
    preset=("model=eve_7b",),
)
"""LLaVA's layout, with the patch embedding in place of the tower."""

VILA15 = Format(
    "vila15",
    None,
    signature=("llm.model.embed_tokens.weight", "mm_projector.layers.2.weight"),
    submodules={"llm.": "backbone", "mm_projector.": CONNECTOR, "vision_tower.": ENCODER},
    preset=("model=vila15_8b",),
)
"""Three folders: `io.tensor_files.read` makes their names prefixes."""


FORMATS = (
    _llava("0.weight"),
    _llava("weight"),
    *LLAVA16,
    EVE,
    VILA15,
    Format(
        "llava_hf",
        None,
        signature=("language_model.model.embed_tokens.weight", "multi_modal_projector.linear_1.weight"),
        submodules={
            "language_model.": "backbone",
            "multi_modal_projector.": (CONNECTOR, "multi_modal_projector."),
            "vision_tower.": ENCODER,
        },
        preset=("model=llava15_7b",),
    ),
    Format(
        "llava_hf5",
        None,
        signature=("model.language_model.embed_tokens.weight", "model.multi_modal_projector.linear_1.weight"),
        submodules={
            "model.language_model.": ("backbone", "model."),
            "lm_head.": ("backbone", "lm_head."),
            "model.multi_modal_projector.": (CONNECTOR, "model.multi_modal_projector."),
            "model.vision_tower.": ENCODER,
        },
        preset=("model=llava15_7b",),
    ),
)
