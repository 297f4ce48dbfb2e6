"""InternViT under the names of its project and of transformers."""

from mmrnn.encoders import InternViT
from mmrnn.weights.format import Format
from mmrnn.weights.formats.tower_shapes import adapt

BLOCK = "trunk.blocks.{}"

OWN = {
    "embeddings.class_embedding": "trunk.cls_token",
    "embeddings.position_embedding": "trunk.pos_embed",
    "embeddings.patch_embedding.*": "trunk.patch_embed.proj.*",
    "encoder.layers.{}.ls1": f"{BLOCK}.ls1.gamma",
    "encoder.layers.{}.ls2": f"{BLOCK}.ls2.gamma",
    "encoder.layers.{}.*": f"{BLOCK}.*",
}

LAYER = "encoder.layer.{}"
HF = {
    "embeddings.cls_token": "trunk.cls_token",
    "embeddings.position_embeddings": "trunk.pos_embed",
    "embeddings.patch_embeddings.projection.*": "trunk.patch_embed.proj.*",
    f"{LAYER}.lambda_1": f"{BLOCK}.ls1.gamma",
    f"{LAYER}.lambda_2": f"{BLOCK}.ls2.gamma",
    f"{LAYER}.layernorm_before.*": f"{BLOCK}.norm1.*",
    f"{LAYER}.layernorm_after.*": f"{BLOCK}.norm2.*",
    **{f"{LAYER}.attention.{part}_proj.*": f"{part}>{BLOCK}.attn.qkv.*" for part in "qkv"},
    f"{LAYER}.attention.q_norm.*": f"{BLOCK}.attn.q_norm.*",
    f"{LAYER}.attention.k_norm.*": f"{BLOCK}.attn.k_norm.*",
    f"{LAYER}.attention.projection_layer.*": f"{BLOCK}.attn.proj.*",
    f"{LAYER}.mlp.*": f"{BLOCK}.mlp.*",
}

FORMATS = tuple(
    Format(
        name,
        InternViT,
        signature=(f"{prefix}{key}",),
        names={f"{prefix}{theirs}": ours for theirs, ours in names.items()},
        adapt=adapt,
    )
    for name, names, key in (
        ("intern_vit", OWN, "encoder.layers.0.attn.q_norm.weight"),
        ("hf_internvl", HF, "encoder.layer.0.attention.q_norm.weight"),
    )
    for prefix in ("", "vision_model.", "vision_tower.")
)
