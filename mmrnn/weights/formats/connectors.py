"""Projections and gated connectors of LLaVA, VILA, MiniGPT, BLIP-2, VisualRWKV and others."""

from mmrnn.connectors import MLP, GatedLinear, GatedMLP, Linear, RowSeparators
from mmrnn.weights.format import Format
from mmrnn.weights.formats import connector_sizes as sizes
from mmrnn.weights.formats.connector_sizes import by_our_names
from mmrnn.weights.formats.ignored import ENCODER, LANGUAGE

ENCODERS = (
    "model.vision_clip.*",
    "model.vision_tower_compressor.*",
    "vision_tower.*",
    "vision_model.*",
    "visual_encoder.*",
    "model.vision_tower.*",
    "vision_backbone.*",
)
MODELS = (
    "language_model.*",
    "model.language_model.*",
    "llama_model.*",
    "llm_model.*",
    "opt_model.*",
    "t5_model.*",
    "llm_backbone.*",
)
LLAMA = ("model.embed_tokens.*", "model.layers.*", "model.norm.*", "lm_head.*")
OTHER_PARTS = dict.fromkeys(ENCODERS, ENCODER) | dict.fromkeys(MODELS + LLAMA, LANGUAGE)
"""Keys of other parts in checkpoints of whole models."""

BLIP2_HEADS = ("opt_proj", "t5_proj", "llm_proj", "language_projection")
"""Names of the projection after the Q-Former, one for each family of language models."""


def linear(name: str, prefix: str) -> Format:
    """Format of a linear projection."""
    return Format(
        name,
        Linear,
        signature=(f"{prefix}weight",),
        names={f"{prefix}weight": "proj.weight", f"{prefix}bias": "proj.bias"},
        ignored=OTHER_PARTS,
    )


def sequential(name: str, prefix: str) -> Format:
    """Format of an MLP that is an `nn.Sequential` of projections and activations."""
    return Format(
        name,
        MLP,
        signature=(f"{prefix}0.weight", f"{prefix}2.weight"),
        names={f"{prefix}{{}}.*": "layers.{}.*"},
        ignored=OTHER_PARTS,
    )


def hf_llava(name: str, prefix: str) -> Format:
    """Format of the two-layer MLP in transformers."""
    return Format(
        name,
        MLP,
        signature=(f"{prefix}linear_1.weight", f"{prefix}linear_2.weight"),
        names={f"{prefix}linear_1.*": "layers.0.*", f"{prefix}linear_2.*": "layers.2.*"},
        ignored=OTHER_PARTS,
    )


PROJECTIONS = (
    linear("plain", ""),
    linear("llava", "model.mm_projector."),
    linear("prismatic", "projector."),
    linear("prismatic_file", "projector.projector."),
    linear("minigpt", "llama_proj."),
    linear("visualglm", "mixins.eva.model.glm_proj."),
    linear("visualglm_hf", "image_encoder.glm_proj."),
    linear("fuyu_hf", "vision_embed_tokens."),
    *(linear(f"blip2_{head}", f"{head}.") for head in BLIP2_HEADS),
    sequential("plain", ""),
    sequential("llava", "model.mm_projector."),
    sequential("prismatic", "projector."),
    sequential("prismatic_file", "projector.projector."),
    hf_llava("llava_hf", "multi_modal_projector."),
    hf_llava("llava_hf5", "model.multi_modal_projector."),
    Format(
        "vila_downsample",
        MLP,
        signature=("layers.1.weight", "layers.2.weight", "layers.4.weight"),
        names={"layers.1.*": "norm.*", "layers.2.*": "layers.0.*", "layers.4.*": "layers.2.*"},
    ),
)


def tiles(name: str, prefix: str, projection: str, names: dict[str, str]) -> Format:
    """Format of LLaVA-1.6's MLP and the token at the end of its rows; `names`: of the projections."""
    newline = f"{prefix}image_newline"
    inner = {f"{prefix}{projection}.{theirs}.*": f"part.layers.{ours}.*" for theirs, ours in names.items()}
    return Format(
        name,
        RowSeparators,
        (newline, f"{prefix}{projection}.{min(names).replace('{}', '0')}.weight"),
        {newline: "newline", **inner},
        OTHER_PARTS,
    )


HF_LINEAR = {"linear_1": "0", "linear_2": "2"}
TILES = (
    tiles("llava16", "model.", "mm_projector", {"{}": "{}"}),
    tiles("llava16_hf", "", "multi_modal_projector", HF_LINEAR),
    tiles("llava16_hf5", "model.", "multi_modal_projector", HF_LINEAR),
)

GATED = (
    Format(
        "visualrwkv_hd",
        GatedMLP,
        signature=("proj.weight", "gate.weight", "o_proj.weight"),
        names={"proj.*": "proj.*", "gate.*": "gate.*", "o_proj.*": "output.*"},
    ),
    Format(
        "visualrwkv_v7",
        GatedLinear,
        signature=("gate.weight", "o_proj.weight", "ln_v.weight"),
        names={"gate.*": "gate.*", "o_proj.*": "output.*", "ln_v.*": "norm.*"},
    ),
)

UHD = Format(
    "visualrwkv_uhd",
    MLP,
    signature=("proj.weight", "gate.weight", "o_proj.weight"),
    names={"proj.*": "layers.0.*", "o_proj.*": "layers.2.*"},
    ignored={"gate.weight": "unused: ReLU replaced the gate"},
)

INFER = {Linear: sizes.linear, MLP: sizes.mlp, GatedMLP: sizes.gated_mlp, GatedLinear: sizes.gated_linear}

FORMATS: tuple[Format, ...] = (
    *(by_our_names(form, INFER[form.part]) for form in (*PROJECTIONS, *GATED)),
    by_our_names(UHD, sizes.relu_mlp),
    *TILES,
)
