"""Names and shapes of published towers, from the classes of transformers and timm on the meta device."""

import torch
from languages import Shapes, of_transformers, under

CLIP_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}


def clip_config(size: int = 336) -> object:
    import transformers

    return transformers.CLIPVisionConfig(**CLIP_L, image_size=size, patch_size=14)


def with_level(shapes: Shapes) -> Shapes:
    """With the level `vision_model` that every file has and transformers 5 has not."""
    return {f"vision_model.{name.removeprefix('vision_model.')}": shape for name, shape in shapes.items()}


def clip() -> Shapes:
    """At 336 pixels."""
    return with_level(of_transformers("CLIPVisionModel", clip_config()))


def whole_clip() -> Shapes:
    """At 224 pixels, with its text side."""
    import transformers

    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision = {**CLIP_L, "image_size": 224, "patch_size": 14}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    return of_transformers("CLIPModel", config)


def siglip() -> Shapes:
    """At 384 pixels, with its pooling head."""
    import transformers

    config = transformers.SiglipVisionConfig(**SO400M, image_size=384, patch_size=14)
    return with_level(of_transformers("SiglipVisionModel", config))


def siglip2_b16(image: int = 256) -> Shapes:
    """B/16, by default at 256 pixels, with its pooling head."""
    import transformers

    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = transformers.SiglipVisionConfig(**sizes, image_size=image, patch_size=16)
    return with_level(of_transformers("SiglipVisionModel", config))


def intern() -> Shapes:
    """InternViT-6B at 448 pixels, under the names of its own code, with the 45 blocks that are published."""
    d, ffn = 3200, 12800
    shapes: Shapes = {
        "embeddings.class_embedding": (1, 1, d),
        "embeddings.position_embedding": (1, 1025, d),
        "embeddings.patch_embedding.weight": (d, 3, 14, 14),
        "embeddings.patch_embedding.bias": (d,),
    }
    vectors = ("ls1", "ls2", "norm1.weight", "norm2.weight", "attn.q_norm.weight", "attn.k_norm.weight")
    block: Shapes = {**dict.fromkeys(vectors, (d,)), "attn.qkv.weight": (3 * d, d)}
    for name, rows, cols in (("attn.proj", d, d), ("mlp.fc1", ffn, d), ("mlp.fc2", d, ffn)):
        block |= {f"{name}.weight": (rows, cols), f"{name}.bias": (rows,)}
    for layer in range(45):
        shapes |= under(f"encoder.layers.{layer}.", block)
    return shapes


def of_timm(name: str, **knobs: object) -> Shapes:
    import timm

    with torch.device("meta"):
        state = timm.create_model(name, **knobs).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def eva_g(blocks: int = 39) -> Shapes:
    """As LAVIS names it, which is as timm does; without a final norm and a head."""
    shapes = of_timm("eva_giant_patch14_clip_224", depth=blocks, num_classes=0)
    return {name: shape for name, shape in shapes.items() if not name.startswith(("norm.", "fc_norm."))}


def three() -> Shapes:
    """DINOv2 and SigLIP from timm, the encoder of SAM from its own code."""
    dino = of_timm("vit_large_patch14_reg4_dinov2", num_classes=0, img_size=448)
    siglip = of_timm("vit_so400m_patch14_siglip_384", num_classes=0, img_size=448)
    sam = {name.replace("mlp.fc", "mlp.lin"): shape for name, shape in of_timm("samvit_base_patch16").items()}
    parts = {"dino_featurizer.": dino, "siglip_featurizer.": siglip, "sam_featurizer.": sam}
    return {name: shape for prefix, shapes in parts.items() for name, shape in under(prefix, shapes).items()}


def lite0() -> Shapes:
    """EfficientNet-Lite0 in the words of EfficientNet-PyTorch: kernel, stride, expansion, width in and out."""
    stages = ((1, 3, 1, 32, 16), (2, 3, 6, 16, 24), (2, 5, 6, 24, 40), (3, 3, 6, 40, 80))
    stages += ((3, 5, 6, 80, 112), (4, 5, 6, 112, 192), (1, 3, 6, 192, 320))
    shapes = {"_conv_stem.weight": (32, 3, 3, 3), **batch_norm("_bn0", 32)}
    number = 0
    for repeats, kernel, expand, entry, width in stages:
        for _ in range(repeats):
            block, inner = f"_blocks.{number}", entry * expand
            if expand > 1:
                shapes |= {f"{block}._expand_conv.weight": (inner, entry, 1, 1), **batch_norm(f"{block}._bn0", inner)}
            shapes |= {
                f"{block}._depthwise_conv.weight": (inner, 1, kernel, kernel),
                **batch_norm(f"{block}._bn1", inner),
            }
            shapes |= {f"{block}._project_conv.weight": (width, inner, 1, 1), **batch_norm(f"{block}._bn2", width)}
            entry, number = width, number + 1
    shapes |= {"_conv_head.weight": (1280, 320, 1, 1), **batch_norm("_bn1", 1280)}
    return shapes | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


def batch_norm(name: str, width: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (width,) for leaf in vectors}, f"{name}.num_batches_tracked": ()}


def cogvlm_tower(prefix: str, *, hub: bool) -> Shapes:
    """63 of the 64 blocks of EVA02-CLIP-E at 490 pixels, in the words of the hub or of SAT."""
    d, ffn = 1792, 15360
    first = ("patch_embedding.cls_embedding", "patch_embedding.position_embedding.weight", "patch_embedding.proj")
    names = ("mlp.fc1", "mlp.fc2")
    if not hub:
        first = ("transformer.word_embeddings.weight", "transformer.position_embeddings.weight")
        first += ("mixins.patch_embedding.proj",)
        names = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    shapes: Shapes = {
        first[0]: (1, d),
        first[1]: (1226, d),
        f"{first[2]}.weight": (d, 3, 14, 14),
        f"{first[2]}.bias": (d,),
    }
    return under(prefix, shapes | sat_blocks(63, d, ffn, *names))


def glm_tower(prefix: str) -> Shapes:
    """EVA-g at 224 pixels with its norm behind."""
    d = 1408
    shapes: Shapes = {"transformer.word_embeddings.weight": (1, d), "transformer.position_embeddings.weight": (257, d)}
    shapes |= {"mixins.patch_embedding.proj.weight": (d, 3, 14, 14), "mixins.patch_embedding.proj.bias": (d,)}
    shapes |= {"mixins.cls.ln_vision.weight": (d,), "mixins.cls.ln_vision.bias": (d,)}
    return under(prefix, shapes | sat_blocks(39, d, 6144, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"))


def sat_blocks(depth: int, d: int, ffn: int, up: str, down: str) -> Shapes:
    block: Shapes = {}
    for name, rows, cols in (
        ("attention.query_key_value", 3 * d, d),
        ("attention.dense", d, d),
        (up, ffn, d),
        (down, d, ffn),
    ):
        block |= {f"{name}.weight": (rows, cols), f"{name}.bias": (rows,)}
    for name in ("input_layernorm", "post_attention_layernorm"):
        block |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
    return {f"transformer.layers.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
