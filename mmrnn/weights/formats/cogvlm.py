"""CogVLM: language model, visual experts and adapter, under the names of the Hugging Face hub and of SAT."""

from torch import nn

from mmrnn.backbones import Transformer, VisualExpert
from mmrnn.connectors import BeginEndTokens
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.fused_qkv import join, split
from mmrnn.weights.formats.ignored import COMPUTED, ENCODER, HOOK, LANGUAGE

HF_LAYER, OURS = "model.layers.{}", "blocks.{}"
SAT_LAYER = "transformer.layers.{}"


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Split fused projections."""
    return split(tensors)


def experts(kind: str, attention: str, mlp: str, ours: str) -> dict[str, str]:
    """Names of the language or vision weights (`kind`) of all blocks on the hub."""
    return {
        f"{HF_LAYER}.self_attn.{kind}_expert_query_key_value.weight": f"{ours}.{attention}.qkv>weight",
        f"{HF_LAYER}.self_attn.{kind}_expert_dense.weight": f"{ours}.{attention}.output.weight",
        f"{HF_LAYER}.mlp.{kind}_mlp.gate_proj.weight": f"{ours}.{mlp}.gate.weight",
        f"{HF_LAYER}.mlp.{kind}_mlp.up_proj.weight": f"{ours}.{mlp}.up.weight",
        f"{HF_LAYER}.mlp.{kind}_mlp.down_proj.weight": f"{ours}.{mlp}.down.weight",
    }


HF_VISION = {
    f"{HF_LAYER}.self_attn.vision_expert_query_key_value.weight": HOOK,
    f"{HF_LAYER}.self_attn.vision_expert_dense.weight": HOOK,
    f"{HF_LAYER}.mlp.vision_mlp.*": HOOK,
}
HF_LANGUAGE = {
    "model.embed_tokens.weight": "embedding.weight",
    f"{HF_LAYER}.input_layernorm.weight": f"{OURS}.norm_attention.weight",
    f"{HF_LAYER}.post_attention_layernorm.weight": f"{OURS}.norm_mlp.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
    **experts("language", "attention", "mlp", OURS),
}
SAT_LANGUAGE = {
    "transformer.word_embeddings.weight": "embedding.weight",
    f"{SAT_LAYER}.input_layernorm.weight": f"{OURS}.norm_attention.weight",
    f"{SAT_LAYER}.post_attention_layernorm.weight": f"{OURS}.norm_mlp.weight",
    f"{SAT_LAYER}.attention.query_key_value.weight": f"{OURS}.attention.qkv>weight",
    f"{SAT_LAYER}.attention.dense.weight": f"{OURS}.attention.output.weight",
    f"{SAT_LAYER}.mlp.dense_h_to_4h.weight": f"{OURS}.mlp.up.weight",
    f"{SAT_LAYER}.mlp.dense_4h_to_h.weight": f"{OURS}.mlp.down.weight",
    "mixins.mlp.gate_proj.{}.weight": f"{OURS}.mlp.gate.weight",
    "transformer.final_layernorm.weight": "norm.weight",
    "mixins.lm.lm_head.weight": "output.weight",
}
SAT_EXPERTS = {
    "mixins.rotary.vision_query_key_value_list.{}.weight": "layers.{}.attention.qkv>weight",
    "mixins.rotary.vision_dense_list.{}.weight": "layers.{}.attention.output.weight",
    "mixins.mlp.vision_gate_proj.{}.weight": "layers.{}.mlp.gate.weight",
    "mixins.mlp.vision_dense_h_to_4h_list.{}.weight": "layers.{}.mlp.up.weight",
    "mixins.mlp.vision_dense_4h_to_h_list.{}.weight": "layers.{}.mlp.down.weight",
}


def adapter(name: str, prefix: str, *, other: dict[str, str]) -> Format:
    """Format of the adapter: projection, gated MLP, begin and end vectors."""
    return Format(
        name,
        BeginEndTokens,
        signature=(f"{prefix}boi", f"{prefix}linear_proj.linear_proj.weight"),
        names={
            f"{prefix}boi": "begin",
            f"{prefix}eoi": "end",
            f"{prefix}linear_proj.linear_proj.*": "part.proj.*",
            f"{prefix}linear_proj.norm1.*": "part.norm.*",
            f"{prefix}linear_proj.gate_proj.*": "part.gate.*",
            f"{prefix}linear_proj.dense_h_to_4h.*": "part.up.*",
            f"{prefix}linear_proj.dense_4h_to_h.*": "part.down.*",
        },
        ignored=other,
        inverse=add_axes,
    )


def add_axes(tensors: Tensors) -> Tensors:
    """Give the two vectors their axes for images and tokens."""
    return {name: value.view(1, 1, -1) if name in ("begin", "end") else value for name, value in tensors.items()}


HF_LLM = dict.fromkeys(("model.layers.*", "model.embed_tokens.*", "model.norm.*", "lm_head.*"), LANGUAGE)
SAT_LLM = dict.fromkeys(("transformer.*", "mixins.mlp.*", "mixins.rotary.*", "mixins.lm.*"), LANGUAGE)

FORMATS = (
    Format(
        "cogvlm_hf",
        Transformer,
        signature=("model.layers.0.self_attn.language_expert_query_key_value.weight",),
        names=HF_LANGUAGE,
        ignored={**HF_VISION, "model.vision.*": ENCODER, "model.layers.{}.self_attn.rotary_emb.*": COMPUTED},
        adapt=adapt,
        inverse=join,
    ),
    Format(
        "cogvlm_sat",
        Transformer,
        signature=("mixins.lm.lm_head.weight", "mixins.mlp.gate_proj.0.weight"),
        names=SAT_LANGUAGE,
        ignored={
            "mixins.mlp.vision_*": HOOK,
            "mixins.rotary.vision_*": HOOK,
            "mixins.eva.*": ENCODER,
        },
        adapt=adapt,
        inverse=join,
    ),
    Format(
        "cogvlm_hf",
        VisualExpert,
        signature=("model.layers.0.self_attn.vision_expert_query_key_value.weight",),
        names=experts("vision", "attention", "mlp", "layers.{}"),
        ignored=dict.fromkeys(
            (
                "model.embed_tokens.*",
                f"{HF_LAYER}.input_layernorm.*",
                f"{HF_LAYER}.post_attention_layernorm.*",
                f"{HF_LAYER}.self_attn.language_expert_query_key_value.*",
                f"{HF_LAYER}.self_attn.language_expert_dense.*",
                f"{HF_LAYER}.self_attn.rotary_emb.*",
                f"{HF_LAYER}.mlp.language_mlp.*",
                "model.norm.*",
                "lm_head.*",
            ),
            LANGUAGE,
        )
        | {"model.vision.*": ENCODER},
        adapt=adapt,
        inverse=join,
    ),
    Format(
        "cogvlm_sat",
        VisualExpert,
        signature=("mixins.rotary.vision_query_key_value_list.0.weight",),
        names=SAT_EXPERTS,
        ignored=dict.fromkeys(("transformer.*", "mixins.mlp.gate_proj.*", "mixins.lm.*"), LANGUAGE)
        | {"mixins.eva.*": ENCODER},
        adapt=adapt,
        inverse=join,
    ),
    adapter(
        "cogvlm_hf",
        "model.vision.",
        other={**HF_LLM, "model.vision.patch_embedding.*": ENCODER, "model.vision.transformer.*": ENCODER},
    ),
    adapter("cogvlm_sat", "mixins.eva.", other={**SAT_LLM, "mixins.eva.vit_model.*": ENCODER}),
)
