"""Language models of transformers (OPT, Persimmon, T5) under the names of the hub, LAVIS and Fuyu."""

from torch import nn

from mmrnn.backbones import HFDecoder, HFEncoderDecoder
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.ignored import CONNECTOR, ENCODER

OTHER_PARTS = {
    **dict.fromkeys(("vision_model.*", "visual_encoder.*", "ln_vision.*", "vision_tower.*"), ENCODER),
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
        CONNECTOR,
    ),
}


def fill_tied(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Give a tied tensor under every name that the module has for it; a file may store it once."""
    groups: dict[int, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(value), []).append(name)
    for names in groups.values():
        stored = next((tensors[name] for name in names if name in tensors), None)
        if stored is not None:
            tensors |= {name: tensors.get(name, stored) for name in names}
    head, table = "model.lm_head.weight", "model.shared.weight"
    if isinstance(module, HFEncoderDecoder) and head not in tensors and table in tensors:
        # transformers 5 ties the head of a new T5 even where its configuration says that it is not, and stores it once.
        tensors[head] = tensors[table]
        notes.append("the file has no head: it is the embedding's, as transformers 5 saves it")
    return tensors


def language(name: str, part: type, prefix: str, key: str) -> Format:
    """Format of a language model whose tensors have a prefix; `key` is the signature."""
    return Format(
        name,
        part,
        signature=(f"{prefix}{key}",),
        names={f"{prefix}*": "model.*"},
        ignored=OTHER_PARTS,
        adapt=fill_tied,
    )


IN_MEMORY = Format(
    "hf_vlm5",
    HFDecoder,
    signature=("model.language_model.layers.0.self_attn.query_key_value.weight", "lm_head.weight"),
    names={"model.language_model.*": "model.model.*", "lm_head.*": "model.lm_head.*"},
    ignored={"model.vision_embed_tokens.*": CONNECTOR},
    adapt=fill_tied,
)
"""Fuyu as `state_dict` of transformers 5 names it."""

SIGNATURES = (
    (HFDecoder, "model.decoder.embed_tokens.weight"),
    (HFDecoder, "model.layers.0.self_attn.query_key_value.weight"),
    (HFEncoderDecoder, "shared.weight"),
)
PREFIXES = (("hf", ""), ("hf_vlm", "language_model."), ("lavis", "opt_model."), ("lavis", "t5_model."))

FORMATS = (
    *(language(name, part, prefix, key) for part, key in SIGNATURES for name, prefix in PREFIXES),
    IN_MEMORY,
)
