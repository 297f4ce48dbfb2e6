"""Llama, Qwen2 and Qwen3 under the names of the Hugging Face hub and of GGUF files."""

from collections.abc import Mapping
from typing import Any

from torch import Size, nn

from mmrnn.backbones import Transformer
from mmrnn.weights.format import Format, Shapes, Sizes, Tensors, unchanged
from mmrnn.weights.formats.ignored import COMPUTED, CONNECTOR, ENCODER, LOSS

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

GGUF_NAMES = {
    "token_embd.weight": "embedding.weight",
    "blk.{}.attn_norm.weight": "blocks.{}.norm_attention.weight",
    "blk.{}.attn_q.*": "blocks.{}.attention.query.*",
    "blk.{}.attn_k.*": "blocks.{}.attention.key.*",
    "blk.{}.attn_v.*": "blocks.{}.attention.value.*",
    "blk.{}.attn_output.weight": "blocks.{}.attention.output.weight",
    "blk.{}.attn_q_norm.weight": "blocks.{}.attention.query_norm.weight",
    "blk.{}.attn_k_norm.weight": "blocks.{}.attention.key_norm.weight",
    "blk.{}.ffn_norm.weight": "blocks.{}.norm_mlp.weight",
    "blk.{}.ffn_gate.weight": "blocks.{}.mlp.gate.weight",
    "blk.{}.ffn_up.weight": "blocks.{}.mlp.up.weight",
    "blk.{}.ffn_down.weight": "blocks.{}.mlp.down.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "output.weight",
}

EMBEDDING, LAYER = "model.embed_tokens.weight", "model.layers.0."


def drop_tied_head(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Drop the head where the module uses its embedding (tied weights, which a file may store twice)."""
    if "output.weight" not in module.state_dict() and tensors.pop("output.weight", None) is not None:
        notes.append("the head of the file was left out: the module uses its embedding")
    return tensors


def infer(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes from the shapes; number of heads and RoPE base from `config.json`.

    Raises:
        ValueError: there is no number of heads, or the model has scaled RoPE or a sliding window.
    """
    metadata = metadata.get("text_config") or metadata
    if "num_attention_heads" not in metadata:
        raise ValueError("the number of heads is not in the tensors: load the folder that has config.json")
    rope = metadata.get("rope_parameters") or metadata.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
    if scaled or (metadata.get("sliding_window") and metadata.get("use_sliding_window")):
        raise ValueError(
            "this model has scaled RoPE or a sliding window, which Transformer does not support; choose another base"
        )
    heads = metadata["num_attention_heads"]
    knobs = {
        "heads": heads,
        "head_size": shapes[f"{LAYER}self_attn.q_proj.weight"][0] // heads,
        "rope_theta": float(metadata.get("rope_theta", rope.get("rope_theta", 10000.0))),
        "eps": float(metadata.get("rms_norm_eps", 1e-6)),
    }
    return _from_shapes(shapes, NAMES, knobs, tie_embeddings=metadata.get("tie_word_embeddings"))


def infer_gguf(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes from the shapes and the metadata of the header.

    Raises:
        ValueError: the model has scaled RoPE.
    """
    kind = metadata["general.architecture"]
    if any(name.startswith(f"{kind}.rope.scaling.") for name in metadata):
        raise ValueError("this model has scaled RoPE, which Transformer does not support; choose another base")
    heads = metadata[f"{kind}.attention.head_count"]
    knobs = {
        "heads": heads,
        "head_size": shapes["blk.0.attn_q.weight"][0] // heads,
        "rope_theta": float(metadata.get(f"{kind}.rope.freq_base", 10000.0)),
        "eps": round(float(metadata[f"{kind}.attention.layer_norm_rms_epsilon"]), 12),
    }
    return _from_shapes(shapes, GGUF_NAMES, knobs)


def _from_shapes(
    shapes: Shapes, names: Mapping[str, str], knobs: dict[str, Any], tie_embeddings: bool | None = None
) -> Sizes:
    theirs = {ours.replace("{}", "0"): name.replace("{}", "0") for name, ours in names.items()}

    def shape(ours: str) -> Size | None:
        return shapes.get(theirs[ours])

    attention = "blocks.0.attention"
    depth_of = {int(part) for name in shapes for part in name.split(".")[1:3] if part.isdecimal()}
    knobs["vocab"], knobs["width"] = shapes[theirs["embedding.weight"]]
    knobs["depth"] = 1 + max(depth_of)
    key = theirs[f"{attention}.key.*"].replace("*", "weight")
    knobs["kv_heads"] = shapes[key][0] // knobs["head_size"]
    knobs["ffn"] = shape("blocks.0.mlp.up.weight")[0]
    knobs["bias"] = key.replace("weight", "bias") in shapes
    knobs["qk_norm"] = shape(f"{attention}.query_norm.weight") is not None
    knobs["tie_embeddings"] = shape("output.weight") is None if tie_embeddings is None else bool(tie_embeddings)
    return Sizes(knobs)


OTHER_PARTS = {
    **dict.fromkeys(("model.vision_tower.*", "vision_tower.*", "vision_model.*"), ENCODER),
    **dict.fromkeys(("model.mm_projector.*", "model.image_newline", "llama_proj.*"), CONNECTOR),
    **dict.fromkeys(("model.vision_tower_compressor.*", "model.vision_clip.*"), LOSS),
    "model.layers.{}.self_attn.rotary_emb.inv_freq": COMPUTED,
}

FORMATS = (
    Format(
        "llama",
        Transformer,
        signature=(EMBEDDING, f"{LAYER}self_attn.q_proj.weight"),
        names=NAMES,
        ignored=OTHER_PARTS,
        adapt=drop_tied_head,
        inverse=unchanged,
        infer=infer,
    ),
    Format(
        "minigpt",
        Transformer,
        signature=(f"llama_model.{EMBEDDING}",),
        names={f"llama_model.{theirs}": ours for theirs, ours in NAMES.items()},
        ignored={
            **OTHER_PARTS,
            "llama_model.model.layers.{}.self_attn.rotary_emb.inv_freq": COMPUTED,
            **dict.fromkeys(("visual_encoder.*", "ln_vision.*"), ENCODER),
            **dict.fromkeys(("query_tokens", "Qformer.*"), CONNECTOR),
        },
        adapt=drop_tied_head,
        inverse=unchanged,
    ),
    Format(
        "gguf",
        Transformer,
        signature=("token_embd.weight", "blk.0.attn_q.weight"),
        names=GGUF_NAMES,
        adapt=drop_tied_head,
        infer=infer_gguf,
    ),
)
