"""Qwen-VL: resampler and language model. Its tower is in `towers`."""

from torch import nn

from mmrnn.backbones import Transformer
from mmrnn.connectors import Resampler
from mmrnn.weights.format import Format, Tensors
from mmrnn.weights.formats.fused_qkv import join, split
from mmrnn.weights.formats.ignored import COMPUTED, ENCODER, LANGUAGE, VISION


def adapt(tensors: Tensors, module: nn.Module, notes: list[str]) -> Tensors:
    """Split the fused projection, and transpose the output matrix, which is published for `x @ proj`."""
    tensors = split(tensors)
    if "output.weight" in tensors:
        tensors["output.weight"] = tensors["output.weight"].T
    return tensors


def inverse(tensors: Tensors) -> Tensors:
    """Undo `adapt`."""
    return {name: value.T if name == "output.weight" else value for name, value in join(tensors).items()}


def resampler(prefix: str) -> Format:
    """Format of the resampler."""
    pool = f"{prefix}attn_pool."
    return Format(
        "qwen_vl",
        Resampler,
        signature=(f"{pool}query", f"{pool}kv_proj.weight"),
        names={
            f"{pool}query": "queries",
            f"{pool}kv_proj.*": "in_proj.*",
            f"{pool}ln_q.*": "norm_query.*",
            f"{pool}ln_kv.*": "norm_key.*",
            f"{pool}attn.in_proj_weight": "qkv>weight",
            f"{pool}attn.in_proj_bias": "qkv>bias",
            f"{pool}attn.out_proj.*": "out_proj.*",
            f"{prefix}ln_post.*": "norm.*",
            f"{prefix}proj": "output.weight",
        },
        ignored={
            f"{pool}pos_embed": COMPUTED,
            **dict.fromkeys((f"{prefix}conv1.*", f"{prefix}positional_embedding", f"{prefix}ln_pre.*"), ENCODER),
            f"{prefix}transformer.*": ENCODER,
            **dict.fromkeys(("transformer.h.*", "transformer.wte.*", "transformer.ln_f.*", "lm_head.*"), LANGUAGE),
        },
        adapt=adapt,
        inverse=inverse,
    )


TRANSFORMER = Format(
    "qwen_vl",
    Transformer,
    signature=("transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"),
    names={
        "transformer.wte.weight": "embedding.weight",
        "transformer.h.{}.ln_1.weight": "blocks.{}.norm_attention.weight",
        "transformer.h.{}.attn.c_attn.weight": "blocks.{}.attention.qkv>weight",
        "transformer.h.{}.attn.c_attn.bias": "blocks.{}.attention.qkv>bias",
        "transformer.h.{}.attn.c_proj.weight": "blocks.{}.attention.output.weight",
        "transformer.h.{}.ln_2.weight": "blocks.{}.norm_mlp.weight",
        # w2 is the gate.
        "transformer.h.{}.mlp.w1.weight": "blocks.{}.mlp.up.weight",
        "transformer.h.{}.mlp.w2.weight": "blocks.{}.mlp.gate.weight",
        "transformer.h.{}.mlp.c_proj.weight": "blocks.{}.mlp.down.weight",
        "transformer.ln_f.weight": "norm.weight",
        "lm_head.weight": "output.weight",
    },
    ignored={
        "transformer.visual.*": VISION,
        "transformer.h.{}.attn.rotary_emb.inv_freq": COMPUTED,
        "transformer.rotary_emb.inv_freq": COMPUTED,
        "transformer.h.{}.attn.masked_bias": "a constant",
    },
    adapt=lambda tensors, module, notes: split(tensors),
    inverse=join,
)

FORMATS = (resampler("transformer.visual."), resampler(""), TRANSFORMER)
