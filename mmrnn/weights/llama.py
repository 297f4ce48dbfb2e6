"""Llama and Qwen2 in the layout of the Hugging Face hub."""

from torch import Tensor, nn

from mmrnn.weights.format import Format

NAMES = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.layers.{}.input_layernorm.weight": "blocks.{}.norm_attention.weight",
    "model.layers.{}.self_attn.q_proj.*": "blocks.{}.attention.query.*",
    "model.layers.{}.self_attn.k_proj.*": "blocks.{}.attention.key.*",
    "model.layers.{}.self_attn.v_proj.*": "blocks.{}.attention.value.*",
    "model.layers.{}.self_attn.o_proj.weight": "blocks.{}.attention.output.weight",
    "model.layers.{}.self_attn.q_norm.weight": "blocks.{}.attention.query_norm.weight",
    "model.layers.{}.self_attn.k_norm.weight": "blocks.{}.attention.key_norm.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blocks.{}.norm_mlp.weight",
    "model.layers.{}.mlp.gate_proj.weight": "blocks.{}.mlp.gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "blocks.{}.mlp.up.weight",
    "model.layers.{}.mlp.down_proj.weight": "blocks.{}.mlp.down.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}


def drop_tied_head(tensors: dict[str, Tensor], module: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    """Files of models whose head is the embedding may hold it twice."""
    if module.output is None and tensors.pop("output.weight", None) is not None:
        notes.append("the head of the file was left out, because the head is the embedding")
    return tensors


FORMATS = (
    Format(
        "llama",
        "Transformer",
        marks=("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"),
        names=NAMES,
        ignored={"model.layers.{}.self_attn.rotary_emb.inv_freq": "rotary frequencies are computed"},
        adapt=drop_tied_head,
    ),
)
