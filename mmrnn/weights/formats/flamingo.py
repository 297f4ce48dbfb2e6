"""OpenFlamingo: Perceiver resampler, gated cross-attention and the language model around which it is inserted."""

from mmrnn.backbones import GatedCrossAttention, Transformer
from mmrnn.connectors import Perceiver
from mmrnn.weights.format import Format
from mmrnn.weights.formats.ignored import CONNECTOR, ENCODER, HOOK, LANGUAGE
from mmrnn.weights.formats.llama import NAMES, drop_tied_head


def perceiver(prefix: str) -> Format:
    """Format of the resampler."""
    layer = f"{prefix}layers.{{}}"
    return Format(
        "openflamingo",
        Perceiver,
        signature=(f"{prefix}latents", f"{prefix}layers.0.0.norm_media.weight"),
        names={
            f"{prefix}latents": "latents",
            f"{layer}.0.norm_media.*": "attentions.{}.norm_source.*",
            f"{layer}.0.norm_latents.*": "attentions.{}.norm_latents.*",
            f"{layer}.0.to_q.*": "attentions.{}.query.*",
            f"{layer}.0.to_kv.*": "attentions.{}.kv.*",
            f"{layer}.0.to_out.*": "attentions.{}.output.*",
            f"{layer}.1.{{}}.*": "ffns.{}.{}.*",
            f"{prefix}norm.*": "norm.*",
        },
        ignored={"lang_encoder.*": LANGUAGE, "vision_encoder.*": ENCODER},
    )


VISION_KEYS = {"perceiver.*": CONNECTOR, "vision_encoder.*": ENCODER}
LANGUAGE_KEYS = ("embed_tokens", "norm", "wte", "norm_f", "lm_head")


def gated(name: str, block: str, signature: tuple[str, ...], ignored: dict[str, str]) -> Format:
    """Format of the gated blocks, named by the pattern `block`."""
    return Format(
        name,
        GatedCrossAttention,
        signature=signature,
        names={
            f"{block}.attn.norm.*": "blocks.{}.norm.*",
            f"{block}.attn.to_q.*": "blocks.{}.query.*",
            f"{block}.attn.to_kv.*": "blocks.{}.kv.*",
            f"{block}.attn.to_out.*": "blocks.{}.output.*",
            f"{block}.attn_gate": "blocks.{}.gate",
            f"{block}.ff.{{}}.*": "blocks.{}.mlp.{}.*",
            f"{block}.ff_gate": "blocks.{}.mlp_gate",
        },
        ignored={**VISION_KEYS, **ignored, "lang_encoder.lm_head.*": LANGUAGE},
    )


def in_layers(name: str, layers: str, every: int) -> Format:
    """Released layout: a gated block is inside the layer that follows it, whose own weights are in `decoder_layer`."""
    block = f"lang_encoder.{layers}.{{}}.gated_cross_attn_layer"
    model = layers.rpartition(".")[0]
    others = {f"lang_encoder.{model}.{other}.*": LANGUAGE for other in LANGUAGE_KEYS}
    decoder = {f"lang_encoder.{layers}.{{}}.decoder_layer.*": LANGUAGE}
    return gated(name, block, (f"{block}.attn_gate".format(every - 1),), {**others, **decoder})


GATED = (
    # No signature: which layers have a block depends on `every`, and no other project has such blocks.
    gated(
        "openflamingo",
        "lang_encoder.gated_cross_attn_layers.{}",
        (),
        dict.fromkeys(("lang_encoder.model.*", "lang_encoder.transformer.*"), LANGUAGE),
    ),
    *(in_layers("openflamingo_llama", "model.layers", every) for every in (1, 2, 4)),
    *(in_layers("openflamingo_mpt", "transformer.blocks", every) for every in (1, 2, 4)),
)

LLAMA = Format(
    "openflamingo",
    Transformer,
    signature=("lang_encoder.model.embed_tokens.weight",),
    names={
        f"lang_encoder.{theirs.replace('layers.{}.', layer)}": ours
        for layer in ("layers.{}.", "layers.{}.decoder_layer.")
        for theirs, ours in NAMES.items()
    },
    ignored={
        "lang_encoder.gated_cross_attn_layers.*": HOOK,
        "lang_encoder.model.layers.{}.gated_cross_attn_layer.*": HOOK,
        **VISION_KEYS,
    },
    adapt=drop_tied_head,
)

FORMATS = (perceiver("perceiver."), perceiver(""), *GATED, LLAMA)
