"""OpenFlamingo: the resampler and the gated blocks; its language models have names of their own."""

from mmrnn.weights.format import Format
from mmrnn.weights.llama import NAMES, drop_tied_head

LANGUAGE = "of the language model"


def perceiver(prefix: str) -> Format:
    layer = f"{prefix}layers.{{}}"
    return Format(
        "openflamingo",
        "Perceiver",
        marks=(f"{prefix}latents", f"{prefix}layers.0.0.norm_media.weight"),
        names={
            f"{prefix}latents": "latents",
            f"{layer}.0.norm_media.*": "looks.{}.norm_source.*",
            f"{layer}.0.norm_latents.*": "looks.{}.norm_latents.*",
            f"{layer}.0.to_q.*": "looks.{}.query.*",
            f"{layer}.0.to_kv.*": "looks.{}.pair.*",
            f"{layer}.0.to_out.*": "looks.{}.output.*",
            f"{layer}.1.{{}}.*": "ffns.{}.{}.*",
            f"{prefix}norm.*": "norm.*",
        },
        ignored={"lang_encoder.*": LANGUAGE, "vision_encoder.*": "of the encoder"},
    )


BLOCKS = "lang_encoder.gated_cross_attn_layers.{}"

GATED = Format(
    "openflamingo",
    "GatedCrossAttention",
    marks=(),  # which layers there are depends on `every`, and no other project has such blocks
    names={
        f"{BLOCKS}.attn.norm.*": "blocks.{}.norm.*",
        f"{BLOCKS}.attn.to_q.*": "blocks.{}.query.*",
        f"{BLOCKS}.attn.to_kv.*": "blocks.{}.pair.*",
        f"{BLOCKS}.attn.to_out.*": "blocks.{}.output.*",
        f"{BLOCKS}.attn_gate": "blocks.{}.gate",
        f"{BLOCKS}.ff.{{}}.*": "blocks.{}.mlp.{}.*",
        f"{BLOCKS}.ff_gate": "blocks.{}.mlp_gate",
    },
    ignored={
        "perceiver.*": "of the connector",
        "vision_encoder.*": "of the encoder",
        **dict.fromkeys(("lang_encoder.model.*", "lang_encoder.transformer.*", "lang_encoder.lm_head.*"), LANGUAGE),
    },
)

LLAMA = Format(
    "openflamingo",
    "Transformer",
    marks=("lang_encoder.model.embed_tokens.weight",),
    names={f"lang_encoder.{theirs}": ours for theirs, ours in NAMES.items()},
    ignored={
        "lang_encoder.gated_cross_attn_layers.*": "of the hook",
        "perceiver.*": "of the connector",
        "vision_encoder.*": "of the encoder",
    },
    adapt=drop_tied_head,
)

FORMATS = (perceiver("perceiver."), perceiver(""), GATED, LLAMA)
