"""Names and shapes of what vision-language designs publish beside towers and language models, and of whole models."""

from languages import (
    LLAMA,
    OPT,
    RWKV,
    Shapes,
    llama,
    llama_config,
    mamba,
    of_transformers,
    opt_config,
    rwkv,
    t5_config,
    under,
)
from layers import affine, norm
from towers import clip, clip_config, cogvlm_tower, glm_tower, siglip2_b16

QUERIES = {"queries": 32, "width": 768, "layers": 12, "ffn": 3072}


def projector(width: int, entry: int = 1024) -> Shapes:
    return {
        **affine("model.mm_projector.0", width, entry),
        **affine("model.mm_projector.2", width, width),
    }


def llava(language: str) -> Shapes:
    tower = under("model.vision_tower.vision_tower.", clip())
    return {**llama(language), **projector(LLAMA[language][2]), **tower}


def llava16(language: str) -> Shapes:
    return {**llava(language), "model.image_newline": (LLAMA[language][2],)}


def llava16_hf(language: str) -> Shapes:
    """As transformers 5 has it in memory; the released one has 64 further rows of the vocabulary."""
    import transformers

    config = transformers.LlavaNextConfig(text_config=llama_config(language), vision_config=clip_config())
    shapes = of_transformers("LlavaNextForConditionalGeneration", config)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        shapes[name] = (32064, LLAMA[language][2])
    return shapes


def llava_hf(language: str) -> Shapes:
    """As transformers 5 has it in memory; the released one has 64 further rows of the vocabulary."""
    import transformers

    config = transformers.LlavaConfig(text_config=llama_config(language), vision_config=clip_config())
    shapes = of_transformers("LlavaForConditionalGeneration", config)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        shapes[name] = (32064, LLAMA[language][2])
    return shapes


def vila15(language: str, tower: Shapes, entry: int) -> Shapes:
    """The folders llm, vision_tower and mm_projector."""
    width, four = LLAMA[language][2], 4 * entry
    hidden_matrices = norm("layers.1", four) | affine("layers.2", width, four) | affine("layers.4", width, width)
    return {
        **under("llm.", llama(language)),
        **under("mm_projector.", hidden_matrices),
        **under("vision_tower.", tower),
    }


def qformer(entry: int = 1408, *, text: bool = False) -> Shapes:
    """LAVIS' names."""
    d, ffn = QUERIES["width"], QUERIES["ffn"]
    shapes: Shapes = {"query_tokens": (1, QUERIES["queries"], d), **norm("Qformer.bert.embeddings.LayerNorm", d)}
    for number in range(QUERIES["layers"]):
        layer = f"Qformer.bert.encoder.layer.{number}"
        for attention in ("attention", "crossattention") if number % 2 == 0 else ("attention",):
            source = d if attention == "attention" else entry
            shapes |= affine(f"{layer}.{attention}.self.query", d, d)
            shapes |= affine(f"{layer}.{attention}.self.key", d, source)
            shapes |= affine(f"{layer}.{attention}.self.value", d, source)
            shapes |= affine(f"{layer}.{attention}.output.dense", d, d)
            shapes |= norm(f"{layer}.{attention}.output.LayerNorm", d)
        for branch in ("_query", "") if text else ("_query",):
            shapes |= affine(f"{layer}.intermediate{branch}.dense", ffn, d)
            shapes |= affine(f"{layer}.output{branch}.dense", d, ffn) | norm(f"{layer}.output{branch}.LayerNorm", d)
    return shapes | norm("ln_vision", entry)


def stage1() -> Shapes:
    """With the text branch, its words, and what the losses learn."""
    d, inner = QUERIES["width"], "Qformer.bert.embeddings."
    shapes = qformer(text=True) | {f"{inner}word_embeddings.weight": (30523, d)}
    shapes |= {f"{inner}position_embeddings.weight": (512, d), f"{inner}position_ids": (1, 512)}
    predict = "Qformer.cls.predictions"
    shapes |= affine(f"{predict}.transform.dense", d, d) | norm(f"{predict}.transform.LayerNorm", d)
    shapes |= {f"{predict}.bias": (30523,), **affine(f"{predict}.decoder", 30523, d)}
    return (
        shapes | affine("vision_proj", 256, d) | affine("text_proj", 256, d) | affine("itm_head", 2, d) | {"temp": ()}
    )


def blip2_lavis(head: str, width: int) -> Shapes:
    return qformer() | affine(head, width, QUERIES["width"])


def blip2_hf(language: str) -> Shapes:
    import transformers

    text = opt_config(language) if language in OPT else t5_config(language)
    config = transformers.Blip2Config(
        vision_config=transformers.Blip2VisionConfig(),
        qformer_config=transformers.Blip2QFormerConfig(),
        text_config=text,
    )
    return of_transformers("Blip2ForConditionalGeneration", config)


def minigptv2() -> Shapes:
    lora: Shapes = {}
    for layer in range(32):
        for name in ("q_proj", "v_proj"):
            stem = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{name}"
            lora |= {f"{stem}.lora_A.weight": (64, 4096), f"{stem}.lora_B.weight": (4096, 64)}
    return {**affine("llama_proj", 4096, 5632), **lora}


def visualglm(*, hub: bool) -> Shapes:
    d, q = 4096, QUERIES["width"]
    prefix = "image_encoder." if hub else "mixins.eva.model."
    block = {}
    for name, rows, cols in (("query_key_value", 3 * d, d), ("dense", d, d)):
        block |= affine(f"attention.{name}", rows, cols)
    block |= affine("mlp.dense_h_to_4h", 4 * d, d) | affine("mlp.dense_4h_to_h", d, 4 * d)
    block |= norm("input_layernorm", d) | norm("post_attention_layernorm", d)
    shapes: Shapes = {"transformer.word_embeddings.weight": (130528, d), **norm("transformer.final_layernorm", d)}
    for layer in range(28):
        shapes |= under(f"transformer.layers.{layer}.", block)
    shapes["lm_head.weight" if hub else "mixins.chatglm-final.lm_head.weight"] = (130528, d)
    inner = f"{prefix}qformer.transformer."
    shapes |= {f"{inner}word_embeddings.weight": (32, q), **norm(f"{inner}final_layernorm", q)}
    for number in range(12):
        layer = f"{inner}layers.{number}"
        shapes |= norm(f"{layer}.input_layernorm", q) | norm(f"{layer}.post_attention_layernorm", q)
        shapes |= affine(f"{layer}.attention.query_key_value", 3 * q, q) | affine(f"{layer}.attention.dense", q, q)
        shapes |= affine(f"{layer}.mlp.dense_h_to_4h", 3072, q) | affine(f"{layer}.mlp.dense_4h_to_h", q, 3072)
        if number % 2 == 0:
            cross = f"{layer}.cross_attention"
            shapes |= affine(f"{cross}.query", q, q) | affine(f"{cross}.key_value", 2 * q, 1408)
            shapes |= affine(f"{cross}.dense", q, q) | norm(f"{layer}.post_cross_attention_layernorm", q)
    return {**shapes, **affine(f"{prefix}glm_proj", d, q), **glm_tower(f"{prefix}vit.")}


def cogvlm_adapter(prefix: str) -> Shapes:
    d, ffn = 4096, 11008
    shapes: Shapes = {"boi": (1, 1, d), "eoi": (1, 1, d), **norm("linear_proj.norm1", d)}
    shapes |= affine("linear_proj.linear_proj", d, 1792, bias=False)
    for name, rows, cols in (("gate_proj", ffn, d), ("dense_h_to_4h", ffn, d), ("dense_4h_to_h", d, ffn)):
        shapes |= affine(f"linear_proj.{name}", rows, cols, bias=False)
    return under(prefix, shapes)


def cogvlm_hf() -> Shapes:
    d, ffn = 4096, 11008
    shapes: Shapes = {"model.embed_tokens.weight": (32000, d), "model.norm.weight": (d,), "lm_head.weight": (32000, d)}
    for layer in range(32):
        block: Shapes = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
        for kind in ("vision", "language"):
            block |= affine(f"self_attn.{kind}_expert_query_key_value", 3 * d, d, bias=False)
            block |= affine(f"self_attn.{kind}_expert_dense", d, d, bias=False)
            for name, rows, cols in (("gate", ffn, d), ("up", ffn, d), ("down", d, ffn)):
                block |= affine(f"mlp.{kind}_mlp.{name}_proj", rows, cols, bias=False)
        shapes |= under(f"model.layers.{layer}.", block)
    return {**shapes, **cogvlm_adapter("model.vision."), **cogvlm_tower("model.vision.", hub=True)}


def cogvlm_sat() -> Shapes:
    d, ffn = 4096, 11008
    shapes: Shapes = {"transformer.word_embeddings.weight": (32000, d), "transformer.final_layernorm.weight": (d,)}
    shapes["mixins.lm.lm_head.weight"] = (32000, d)
    for i in range(32):
        layer = f"transformer.layers.{i}"
        shapes |= {f"{layer}.input_layernorm.weight": (d,), f"{layer}.post_attention_layernorm.weight": (d,)}
        shapes |= affine(f"{layer}.attention.query_key_value", 3 * d, d, bias=False)
        shapes |= affine(f"{layer}.attention.dense", d, d, bias=False)
        shapes |= {f"{layer}.mlp.dense_h_to_4h.weight": (ffn, d), f"{layer}.mlp.dense_4h_to_h.weight": (d, ffn)}
        shapes |= {f"mixins.mlp.gate_proj.{i}.weight": (ffn, d), f"mixins.mlp.vision_gate_proj.{i}.weight": (ffn, d)}
        shapes |= {f"mixins.mlp.vision_dense_h_to_4h_list.{i}.weight": (ffn, d)}
        shapes |= {f"mixins.mlp.vision_dense_4h_to_h_list.{i}.weight": (d, ffn)}
        shapes |= {f"mixins.rotary.vision_query_key_value_list.{i}.weight": (3 * d, d)}
        shapes |= {f"mixins.rotary.vision_dense_list.{i}.weight": (d, d)}
    return {**shapes, **cogvlm_adapter("mixins.eva."), **cogvlm_tower("mixins.eva.vit_model.", hub=False)}


def qwen_vl() -> Shapes:
    d, e, ffn = 4096, 1664, 11008
    shapes: Shapes = {"transformer.wte.weight": (151936, d), "lm_head.weight": (151936, d)}
    shapes["transformer.ln_f.weight"] = (d,)
    for i in range(32):
        layer = f"transformer.h.{i}"
        shapes |= {
            f"{layer}.ln_1.weight": (d,),
            f"{layer}.ln_2.weight": (d,),
            **affine(f"{layer}.attn.c_attn", 3 * d, d),
        }
        for name, rows, cols in (("attn.c_proj", d, d), ("mlp.w1", ffn, d), ("mlp.w2", ffn, d), ("mlp.c_proj", d, ffn)):
            shapes |= affine(f"{layer}.{name}", rows, cols, bias=False)
    visual: Shapes = {"positional_embedding": (256, e), "conv1.weight": (e, 3, 14, 14), **norm("ln_pre", e)}
    for i in range(48):
        block = f"transformer.resblocks.{i}"
        visual |= norm(f"{block}.ln_1", e) | norm(f"{block}.ln_2", e)
        visual |= affine(f"{block}.attn.in_proj", 3 * e, e) | affine(f"{block}.attn.out_proj", e, e)
        visual |= affine(f"{block}.mlp.c_fc", 8192, e) | affine(f"{block}.mlp.c_proj", e, 8192)
    pool: Shapes = {
        "query": (256, d),
        "pos_embed": (256, d),
        "kv_proj.weight": (d, e),
        "attn.in_proj_weight": (3 * d, d),
    }
    pool |= {"attn.in_proj_bias": (3 * d,), **affine("attn.out_proj", d, d), **norm("ln_q", d), **norm("ln_kv", d)}
    visual |= under("attn_pool.", pool) | norm("ln_post", d) | {"proj": (d, d)}
    return shapes | under("transformer.visual.", visual)


def cobra() -> Shapes:
    """Tensors that its training has changed: the file has no towers."""
    projector = affine("0", 8704, 2176) | affine("2", 2560, 8704) | affine("4", 2560, 2560)
    return under("projector.projector.", projector) | under("llm_backbone.llm.", mamba())


def modrwkv(size: str) -> Shapes:
    """WorldRWKV's lg_train/model.py: the tower of transformers without its outer name."""
    width = RWKV[size][1]
    tower = {f"model.{name.removeprefix('vision_model.')}": shape for name, shape in siglip2_b16(384).items()}
    adapter = affine("mlp.0", 4 * width, 768) | affine("mlp.2", width, 4 * width) | norm("pre_norm", width)
    return under("encoder.", tower) | under("proj.", adapter) | under("llm.", rwkv(7, size))


def eve(*, training: bool = False) -> Shapes:
    e, tower = 1024, "model.vision_tower."
    shapes: Shapes = {f"{tower}patch_embedding.weight": (e, 3, 14, 14)}
    shapes |= {f"{tower}class_embedding": (e,), f"{tower}split_embedding": (e,)}
    for name in ("local_attention", "global_attention"):
        inner = f"{tower}{name}"
        shapes |= norm(f"{inner}.q.0", e) | norm(f"{inner}.kv.0", e) | affine(f"{inner}.q.1", e, e, bias=False)
        shapes |= affine(f"{inner}.kv.1", 2 * e, e, bias=False) | affine(f"{inner}.proj", e, e)
    shapes = {**llama("llama2_7b"), **projector(4096), **shapes}
    if training:
        align = "model.vision_tower_compressor."
        for level in range(9):
            shapes |= norm(f"{align}norm_layer.{level}.0", 4096)
            shapes |= affine(f"{align}norm_layer.{level}.1", e, 4096, bias=False)
        shapes |= affine(f"{align}input_layer", e, 4096) | affine(f"{align}output_layer", e, e)
        shapes |= under("model.vision_clip.backbone.", clip())
    return shapes


def fuyu(*, hub: bool) -> Shapes:
    """As released, or as transformers 5 has it in memory."""
    import transformers

    shapes = of_transformers("FuyuForCausalLM", transformers.FuyuConfig())
    if not hub:
        return shapes
    renamed = {}
    for name, shape in shapes.items():
        name = name.replace("model.vision_embed_tokens.", "vision_embed_tokens.")
        name = name.replace("model.language_model.", "language_model.model.")
        renamed["language_model.lm_head.weight" if name == "lm_head.weight" else name] = shape
    return renamed


def openflamingo() -> Shapes:
    """OpenFlamingo-9B: what is trained around MPT-7B, in the layers 4, 8, ... of 32."""
    e, d, inner = 1024, 4096, 512
    shapes: Shapes = {"perceiver.latents": (64, e), **norm("perceiver.norm", e)}
    for i in range(6):
        layer = f"perceiver.layers.{i}"
        shapes |= norm(f"{layer}.0.norm_media", e) | norm(f"{layer}.0.norm_latents", e)
        for name, rows, cols in (("0.to_q", inner, e), ("0.to_kv", 2 * inner, e), ("0.to_out", e, inner)):
            shapes |= affine(f"{layer}.{name}", rows, cols, bias=False)
        shapes |= norm(f"{layer}.1.0", e) | {f"{layer}.1.1.weight": (4 * e, e), f"{layer}.1.3.weight": (e, 4 * e)}
    shapes["lang_encoder.transformer.wte.weight"] = (50434, d)
    for i in range(3, 32, 4):
        block = f"lang_encoder.transformer.blocks.{i}.gated_cross_attn_layer"
        shapes |= {f"{block}.attn_gate": (1,), f"{block}.ff_gate": (1,), **norm(f"{block}.attn.norm", d)}
        for name, rows, cols in (("to_q", inner, d), ("to_kv", 2 * inner, e), ("to_out", d, inner)):
            shapes |= affine(f"{block}.attn.{name}", rows, cols, bias=False)
        shapes |= norm(f"{block}.ff.0", d) | {f"{block}.ff.1.weight": (4 * d, d), f"{block}.ff.3.weight": (d, 4 * d)}
    return shapes
