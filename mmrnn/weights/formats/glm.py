"""VisualGLM in the names of SAT: the Q-Former and ChatGLM. Its tower is in `towers`, its projection in `connectors`."""

from torch import Tensor, nn

from mmrnn.weights.format import Format
from mmrnn.weights.formats.fused_qkv import join, split

EVA, HUB = "mixins.eva.model.", "image_encoder."
"""Before the names of tower, Q-Former and projection: in the files of SAT, and on the hub."""

BEFORE = "before>"
"""Put before the number of a layer whose first norm is the last one of the layer before it."""


def qformer(tensors: dict[str, Tensor], module: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    """SAT norms at the start of a layer what BERT norms at the end of the one before."""
    moved = {}
    for name, value in split(tensors).items():
        if name.startswith(BEFORE):
            number, part = name.removeprefix(BEFORE).split(".")
            name = f"layers.{int(number) - 1}.ffn.norm.{part}" if int(number) else f"norm.{part}"
        elif name.startswith("last>"):
            name = f"layers.{len(module.layers) - 1}.ffn.norm.{name.removeprefix('last>')}"
        moved[name] = value
    if isinstance(module.head, nn.Identity) and "head.weight" in moved:
        notes.append("the projection behind the Q-Former was left out, because this Q-Former ends before it")
        moved = {name: value for name, value in moved.items() if not name.startswith("head.")}
    return moved


GLM_LAYER = "transformer.layers.{}"
LANGUAGE = {
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
    inner = f"{prefix}qformer.transformer."
    layer = f"{inner}layers.{{}}"
    language = ("transformer.*", "mixins.chatglm-final.*", "mixins.chatglm-layernorm.*", "lm_head.*")
    return Format(
        name,
        "QFormer",
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
            f"{inner}final_layernorm.*": "last>*",
            f"{prefix}glm_proj.*": "head.*",
        },
        ignored={f"{prefix}vit.*": "of the encoder", **dict.fromkeys(language, "of the language model")},
        adapt=qformer,
    )


FORMATS = (
    queries("visualglm", EVA),
    queries("visualglm_hf", HUB),
    Format(
        "visualglm",
        "GLM",
        signature=("mixins.chatglm-final.lm_head.weight", "transformer.word_embeddings.weight"),
        names=LANGUAGE,
        ignored={f"{EVA}*": "of the encoder and the connector"},
        adapt=lambda tensors, module, notes: split(tensors),
        inverse=join,
    ),
    Format(
        "chatglm_hf",
        "GLM",
        signature=(
            "transformer.word_embeddings.weight",
            "transformer.layers.0.attention.query_key_value.weight",
            "lm_head.weight",
        ),
        names={
            **LANGUAGE,
            "lm_head.weight": "output.weight",
        },
        ignored={
            f"{HUB}*": "of the encoder and the connector",
            f"{GLM_LAYER}.attention.rotary_emb.inv_freq": "rotary frequencies are computed",
        },
        # The hub lays query, key and value out head by head.
        adapt=lambda tensors, module, notes: split(by_head(tensors, module)),
    ),
)


def by_head(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    heads = module.heads
    return {
        name: value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2) if "qkv>" in name else value
        for name, value in tensors.items()
    }
