"""OPT, Persimmon and T5 as the hub, LAVIS and Fuyu name them, into the adapters of `backbones.hf`."""

from torch import Tensor, nn

from mmrnn.weights.format import Format

BESIDE = {
    **dict.fromkeys(("vision_model.*", "visual_encoder.*", "ln_vision.*", "vision_tower.*"), "of the encoder"),
    **dict.fromkeys(
        (
            "qformer.*",
            "Qformer.*",
            "query_tokens",
            "language_projection.*",
            "opt_proj.*",
            "t5_proj.*",
            "vision_embed_tokens.*",
            "embeddings.*",
        ),
        "of the connector",
    ),
}


def tie(tensors: dict[str, Tensor], module: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    """What is one tensor under several names is stored once or often; here it is needed under all of them."""
    groups: dict[int, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(value), []).append(name)
    for names in groups.values():
        stored = next((tensors[name] for name in names if name in tensors), None)
        if stored is not None:
            tensors |= {name: tensors.get(name, stored) for name in names}
    return tensors


def language(name: str, part: str, prefix: str, mark: str) -> Format:
    return Format(
        name,
        part,
        signature=(f"{prefix}{mark}",),
        names={f"{prefix}*": "model.*"},
        ignored=BESIDE,
        adapt=tie,
    )


IN_MEMORY = Format(
    "hf_vlm5",
    "HFDecoder",
    signature=("model.language_model.layers.0.self_attn.query_key_value.weight", "lm_head.weight"),
    names={"model.language_model.*": "model.model.*", "lm_head.*": "model.lm_head.*"},
    ignored={"model.vision_embed_tokens.*": "of the connector"},
    adapt=tie,
)
"""Fuyu as transformers 5 has the names in memory."""

MARKS = (
    ("HFDecoder", "model.decoder.embed_tokens.weight"),
    ("HFDecoder", "model.layers.0.self_attn.query_key_value.weight"),
    ("HFEncoderDecoder", "shared.weight"),
)
PREFIXES = (("hf", ""), ("hf_vlm", "language_model."), ("lavis", "opt_model."), ("lavis", "t5_model."))

FORMATS = (
    *(language(name, part, prefix, mark) for part, mark in MARKS for name, prefix in PREFIXES),
    IN_MEMORY,
)
