"""Vision towers of CLIP, SigLIP, EVA, SAM, DINOv2, BLIP-2, CogVLM, VisualGLM and Qwen-VL.

One dictionary per project maps the role of a tensor in a ViT to its name. A format joins two of them, with the prefix
that a tower has in a file.
"""

from collections.abc import Mapping

from mmrnn.encoders import OpenCLIPViT, TimmViT
from mmrnn.weights.format import Format
from mmrnn.weights.formats import convnets, ignored
from mmrnn.weights.formats.tower_shapes import adapt


def _blocks(prefix: str, **names: str) -> dict[str, str]:
    return {role: f"{prefix}.{{}}.{name}" for role, name in names.items()}


TIMM = {
    "cls": "cls_token",
    "positions": "pos_embed",
    "patches": "patch_embed.proj.*",
    "before": "norm_pre.*",
    "after": "norm.*",
    **_blocks("blocks", norm1="norm1.*", qkv="attn.qkv.*", out="attn.proj.*", norm2="norm2.*"),
    **_blocks("blocks", up="mlp.fc1.*", down="mlp.fc2.*", scale1="ls1.gamma", scale2="ls2.gamma"),
    "registers": "reg_token",
}

OPEN_CLIP = {
    "cls": "class_embedding",
    "positions": "positional_embedding",
    "patches": "conv1.*",
    "before": "ln_pre.*",
    "after": "ln_post.*",
    **_blocks("transformer.resblocks", norm1="ln_1.*", qkv="attn.in_proj_*", out="attn.out_proj.*", norm2="ln_2.*"),
    **_blocks("transformer.resblocks", up="mlp.c_fc.*", down="mlp.c_proj.*"),
}

HF = {
    "cls": "embeddings.class_embedding",
    "positions": "embeddings.position_embedding.weight",
    "patches": "embeddings.patch_embedding.*",
    "before": "pre_layrnorm.*",
    "after": "post_layernorm.*",
    **_blocks("encoder.layers", norm1="layer_norm1.*", out="self_attn.out_proj.*", norm2="layer_norm2.*"),
    **_blocks("encoder.layers", q="self_attn.q_proj.*", k="self_attn.k_proj.*", v="self_attn.v_proj.*"),
    **_blocks("encoder.layers", up="mlp.fc1.*", down="mlp.fc2.*"),
}

DINO = {
    "cls": "embeddings.cls_token",
    "registers": "embeddings.register_tokens",
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection.*",
    "after": "layernorm.*",
    **_blocks("encoder.layer", norm1="norm1.*", scale1="layer_scale1.lambda1", out="attention.output.dense.*"),
    **_blocks("encoder.layer", q="attention.attention.query.*", k="attention.attention.key.*"),
    **_blocks("encoder.layer", v="attention.attention.value.*", norm2="norm2.*", scale2="layer_scale2.lambda1"),
    **_blocks("encoder.layer", up="mlp.fc1.*", down="mlp.fc2.*"),
}

DINO5 = {
    **DINO,
    **_blocks("encoder.layer", q="attention.q_proj.*", k="attention.k_proj.*", v="attention.v_proj.*"),
    **_blocks("encoder.layer", out="attention.o_proj.*"),
}
"""As `state_dict` of transformers 5 names them."""

BLIP2 = {
    **{role: name for role, name in HF.items() if role not in ("before", "q", "k", "v")},
    "positions": "embeddings.position_embedding",
    **_blocks("encoder.layers", qkv="self_attn.qkv.*", out="self_attn.projection.*"),
}

QWEN = {
    **{role: name for role, name in OPEN_CLIP.items() if role not in ("cls", "after", "qkv")},
    **_blocks("transformer.resblocks", heads="attn.in_proj.*"),
}

SAT_BLOCKS = _blocks(
    "transformer.layers",
    norm1="input_layernorm.*",
    qkv="attention.query_key_value.*",
    out="attention.dense.*",
    norm2="post_attention_layernorm.*",
)

COGVLM = {
    "cls": "patch_embedding.cls_embedding",
    "positions": "patch_embedding.position_embedding.weight",
    "patches": "patch_embedding.proj.*",
    **SAT_BLOCKS,
    **_blocks("transformer.layers", up="mlp.fc1.*", down="mlp.fc2.*"),
}

SAT = {
    "cls": "transformer.word_embeddings.weight",
    "positions": "transformer.position_embeddings.weight",
    "patches": "mixins.patch_embedding.proj.*",
    **SAT_BLOCKS,
    **_blocks("transformer.layers", up="mlp.dense_h_to_4h.*", down="mlp.dense_4h_to_h.*"),
}

OURS = {TimmViT: TIMM, OpenCLIPViT: OPEN_CLIP}
PARTS = {"q": "q>", "k": "k>", "v": "v>", "heads": "heads>"}
"""Roles that are a part or another order of `qkv`, and the mark by which `adapt` recognises them."""


def _names(theirs: Mapping[str, str], part: type) -> dict[str, str]:
    ours = OURS[part]
    names = {name: f"trunk.{ours[role]}" for role, name in theirs.items() if role in ours}
    return names | {theirs[role]: f"{mark}trunk.{ours['qkv']}" for role, mark in PARTS.items() if role in theirs}


def _formats(
    name: str,
    theirs: Mapping[str, str],
    *signature: str,
    prefixes: tuple[str, ...] = ("",),
    ignored: Mapping[str, str] | None = None,
    others: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
    parts: tuple[type, ...] = (TimmViT,),
) -> tuple[Format, ...]:
    """Make one format for each class and each prefix of the tower.

    Args:
        ignored: keys of the tower to ignore, without the prefix.
        others: keys of other modules to ignore, as they are.
        more: further names -> ours, without the prefix.
    """
    formats = []
    for part in parts:
        names = {**_names(theirs, part), **(more or {})}
        for prefix in prefixes:
            prefixed = {prefix + key: ours for key, ours in names.items()}
            dropped = {prefix + key: why for key, why in (ignored or {}).items()}
            keys = tuple(prefix + key for key in signature)
            formats.append(Format(name, part, keys, prefixed, dropped | dict(others or {}), adapt=adapt))
    return tuple(formats)


LLAVA_PREFIXES = (
    "",
    "vision_model.",
    "vision_tower.vision_model.",
    "model.vision_tower.",
    "model.vision_tower.vision_tower.vision_model.",
)
HF_IGNORED = {"embeddings.position_ids": ignored.COMPUTED, "head.*": ignored.HEAD}


def _native(name: str, prefix: str, others: Mapping[str, str]) -> Format:
    """Format of timm, whose names are ours without `trunk.`; the original SAM differs in two of them."""
    heads = dict.fromkeys((f"{prefix}head.*", f"{prefix}fc_norm.*", f"{prefix}attn_pool.*"), ignored.HEAD)
    return Format(
        name,
        TimmViT,
        signature=(f"{prefix}patch_embed.proj.weight",),
        names={
            "ln_vision.*": "extra_norm.*",
            "extra_norm.*": "extra_norm.*",
            f"{prefix}blocks.{{}}.mlp.lin1.*": "trunk.blocks.{}.mlp.fc1.*",
            f"{prefix}blocks.{{}}.mlp.lin2.*": "trunk.blocks.{}.mlp.fc2.*",
            f"{prefix}*": "trunk.*",
        },
        ignored={**heads, f"{prefix}mask_token": ignored.PRETRAINING, **others},
        adapt=adapt,
    )


FORMATS: tuple[Format, ...] = (
    _native("timm", "", ignored.LAVIS),
    _native("lavis", "visual_encoder.", ignored.LAVIS),
    _native("open_clip_timm", "visual.trunk.", {"visual.head.*": ignored.HEAD} | ignored.OPEN_CLIP),
    _native("sam", "image_encoder.", ignored.SAM),
    *_formats(
        "hf_clip",
        HF,
        "pre_layrnorm.weight",
        prefixes=LLAVA_PREFIXES,
        ignored=HF_IGNORED,
        others=ignored.HF,
        parts=(TimmViT, OpenCLIPViT),
    ),
    *_formats(
        "hf_siglip",
        HF,
        "embeddings.patch_embedding.bias",
        "encoder.layers.0.self_attn.q_proj.weight",
        prefixes=LLAVA_PREFIXES,
        ignored=HF_IGNORED,
        others=ignored.HF,
    ),
    *(
        one
        for names, query in ((DINO, "attention.attention.query"), (DINO5, "attention.q_proj"))
        for one in _formats(
            "hf_dinov2",
            names,
            "embeddings.cls_token",
            f"encoder.layer.0.{query}.weight",
            ignored={"embeddings.mask_token": ignored.PRETRAINING},
        )
    ),
    *_formats(
        "open_clip",
        OPEN_CLIP,
        "class_embedding",
        "conv1.weight",
        prefixes=("visual.",),
        ignored={"proj": ignored.HEAD},
        others=ignored.OPEN_CLIP,
        parts=(TimmViT, OpenCLIPViT),
    ),
    *_formats(
        "openflamingo",
        OPEN_CLIP,
        "class_embedding",
        "conv1.weight",
        prefixes=("vision_encoder.",),
        ignored={"proj": ignored.HEAD},
        others=ignored.FLAMINGO,
        parts=(TimmViT, OpenCLIPViT),
    ),
    *_formats(
        "open_clip_visual",
        OPEN_CLIP,
        "class_embedding",
        "conv1.weight",
        ignored={"proj": ignored.HEAD},
        parts=(TimmViT, OpenCLIPViT),
    ),
    *_formats("timm", TIMM, "patch_embed.proj.weight", "norm_pre.weight", parts=(OpenCLIPViT,)),
    *_formats(
        "blip2_hf",
        BLIP2,
        "encoder.layers.0.self_attn.qkv.weight",
        prefixes=("vision_model.", ""),
        others=ignored.BLIP2,
    ),
    *_formats(
        "cogvlm_hf",
        COGVLM,
        "patch_embedding.cls_embedding",
        prefixes=("model.vision.", ""),
        ignored=dict.fromkeys(("linear_proj.*", "boi", "eoi"), ignored.CONNECTOR),
        others=ignored.LLAMA,
    ),
    *_formats(
        "sat_eva",
        SAT,
        "transformer.word_embeddings.weight",
        "mixins.patch_embedding.proj.weight",
        more={"mixins.cls.ln_vision.*": "extra_norm.*"},
    ),
    *_formats(
        "sat_eva",
        SAT,
        "transformer.word_embeddings.weight",
        "mixins.patch_embedding.proj.weight",
        prefixes=("mixins.eva.vit_model.", "mixins.eva.model.vit.", "image_encoder.vit."),
        more={"mixins.cls.ln_vision.*": "extra_norm.*"},
        others=ignored.SAT,
    ),
    *_formats(
        "qwen_vl",
        QWEN,
        "positional_embedding",
        "transformer.resblocks.0.attn.in_proj.weight",
        prefixes=("transformer.visual.", ""),
        ignored=dict.fromkeys(("attn_pool.*", "ln_post.*", "proj"), ignored.CONNECTOR),
        others=ignored.QWEN,
    ),
    *convnets.FORMATS,
)
