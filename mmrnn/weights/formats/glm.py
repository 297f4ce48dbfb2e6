"""VisualGLM: Q-Former and ChatGLM. Its tower is in `towers`, its projection in `connectors`."""

from torch import nn

from mmrnn.backbones import GLM
from mmrnn.connectors import QFormer
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.fused_qkv import join, split
from mmrnn.weights.formats.ignored import COMPUTED, ENCODER, LANGUAGE, VISION
from mmrnn.weights.formats.qformer import drop_head

EVA, HUB = "mixins.eva.model.", "image_encoder."
"""Prefix of tower, Q-Former and projection in the files of SAT, and on the hub."""

BEFORE, LAST = "before>", "last>"
"""Marks in a name of ours: the norm before layer `n`, and the one after the last layer."""


def shift_norms(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Split fused projections, and move norms: SAT has a norm at the start of a layer, BERT after the one before it."""
    moved = {}
    for name, value in split(tensors).items():
        if name.startswith(BEFORE):
            number, leaf = name.removeprefix(BEFORE).split(".")
            name = f"layers.{int(number) - 1}.ffn.norm.{leaf}" if int(number) else f"norm.{leaf}"
        elif name.startswith(LAST):
            name = f"layers.{len(module.layers) - 1}.ffn.norm.{name.removeprefix(LAST)}"
        moved[name] = value
    return drop_head(moved, module, notes)


GLM_LAYER = "transformer.layers.{}"
NAMES = {
    "transformer.word_embeddings.weight": "embedding.weight",
    f"{GLM_LAYER}.input_layernorm.*": "blocks.{}.norm_attention.*",
    f"{GLM_LAYER}.attention.query_key_value.weight": "blocks.{}.attention.qkv>weight",
    f"{GLM_LAYER}.attention.query_key_value.bias": "blocks.{}.attention.qkv>bias",
    f"{GLM_LAYER}.attention.dense.*": "blocks.{}.attention.output.*",
    f"{GLM_LAYER}.post_attention_layernorm.*": "blocks.{}.norm_mlp.*",
    f"{GLM_LAYER}.mlp.dense_h_to_4h.*": "blocks.{}.mlp.up.*",
    f"{GLM_LAYER}.mlp.dense_4h_to_h.*": "blocks.{}.mlp.down.*",
    "transformer.final_layernorm.*": "norm.*",
    "mixins.chatglm-final.lm_head.weight": "output.weight",
}


def queries(name: str, prefix: str) -> Format:
    """Format of the Q-Former with its projection."""
    inner = f"{prefix}qformer.transformer."
    layer = f"{inner}layers.{{}}"
    language = ("transformer.*", "mixins.chatglm-final.*", "mixins.chatglm-layernorm.*", "lm_head.*")
    return Format(
        name,
        QFormer,
        signature=(f"{inner}word_embeddings.weight", f"{inner}final_layernorm.weight"),
        names={
            f"{inner}word_embeddings.weight": "queries",
            f"{layer}.input_layernorm.*": f"{BEFORE}{{}}.*",
            f"{layer}.attention.query_key_value.weight": "layers.{}.attention.qkv>weight",
            f"{layer}.attention.query_key_value.bias": "layers.{}.attention.qkv>bias",
            f"{layer}.attention.dense.*": "layers.{}.attention.output.*",
            f"{layer}.post_attention_layernorm.*": "layers.{}.attention.norm.*",
            f"{layer}.cross_attention.query.*": "layers.{}.cross.query.*",
            f"{layer}.cross_attention.key_value.weight": "layers.{}.cross.kv>weight",
            f"{layer}.cross_attention.key_value.bias": "layers.{}.cross.kv>bias",
            f"{layer}.cross_attention.dense.*": "layers.{}.cross.output.*",
            f"{layer}.post_cross_attention_layernorm.*": "layers.{}.cross.norm.*",
            f"{layer}.mlp.dense_h_to_4h.*": "layers.{}.ffn.up.*",
            f"{layer}.mlp.dense_4h_to_h.*": "layers.{}.ffn.down.*",
            f"{inner}final_layernorm.*": f"{LAST}*",
            f"{prefix}glm_proj.*": "head.*",
        },
        ignored={f"{prefix}vit.*": ENCODER, **dict.fromkeys(language, LANGUAGE)},
        adapt=shift_norms,
    )


def split_by_head(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Split fused projections whose rows are in the order (head, qkv), as on the hub."""
    ordered = {
        name: value.unflatten(0, (module.heads, 3, -1)).transpose(0, 1).flatten(0, 2) if "qkv>" in name else value
        for name, value in tensors.items()
    }
    return split(ordered)


FORMATS = (
    queries("visualglm", EVA),
    queries("visualglm_hf", HUB),
    Format(
        "visualglm",
        GLM,
        signature=("mixins.chatglm-final.lm_head.weight", "transformer.word_embeddings.weight"),
        names=NAMES,
        ignored={f"{EVA}*": VISION},
        adapt=lambda tensors, module, notes: split(tensors),
        inverse=join,
    ),
    Format(
        "chatglm_hf",
        GLM,
        signature=(
            "transformer.word_embeddings.weight",
            "transformer.layers.0.attention.query_key_value.weight",
            "lm_head.weight",
        ),
        names={
            **NAMES,
            "lm_head.weight": "output.weight",
        },
        ignored={
            f"{HUB}*": VISION,
            f"{GLM_LAYER}.attention.rotary_emb.inv_freq": COMPUTED,
        },
        adapt=split_by_head,
    ),
)
