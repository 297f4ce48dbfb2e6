"""Names and shapes of published language models.

RWKV's are those of the official training code (src/model.py of VisualRWKV and RWKV-LM), the others come from the
classes of transformers on the meta device, under the names that the released files have.
"""

import re

import torch

Shapes = dict[str, tuple[int, ...]]

RWKV = {  # layers and width; a head is 64 wide, the vocabulary 65536
    "0b1": (12, 768),
    "0b4": (24, 1024),
    "1b5": (24, 2048),
    "1b6": (24, 2048),
    "2b9": (32, 2560),
    "3b": (32, 2560),
    "7b": (32, 4096),
    "14b": (61, 4096),
}
RANKS7 = {"0b1": (64, 64, 32, 128), "0b4": (64, 64, 32, 128), "1b5": (96, 96, 64, 256), "2b9": (96, 96, 64, 320)}
"""Of decay, rate, residual and gate in RWKV-7."""

LLAMA = {  # class, vocabulary, width, layers, heads, groups, width of the MLP, tied head
    "llama2_7b": ("Llama", 32000, 4096, 32, 32, 32, 11008, False),
    "llama2_13b": ("Llama", 32000, 5120, 40, 40, 40, 13824, False),
    "llama3_8b": ("Llama", 128256, 4096, 32, 32, 8, 14336, False),
    "llama_2b7": ("Llama", 32000, 2560, 32, 20, 20, 6912, False),
    "yi_34b": ("Llama", 64000, 7168, 60, 56, 8, 20480, False),
    "qwen2_0b5": ("Qwen2", 151936, 896, 24, 14, 2, 4864, True),
    "qwen2_1b5": ("Qwen2", 151936, 1536, 28, 12, 2, 8960, True),
    "qwen2_7b": ("Qwen2", 152064, 3584, 28, 28, 4, 18944, False),
    "smollm2_135m": ("Llama", 49152, 576, 30, 9, 3, 1536, True),
}
QWEN35 = {  # width, layers, MLP, heads, groups, heads of the delta rule, tied head; tower: width, layers, heads, MLP
    "qwen35_0b8": (1024, 24, 3584, 8, 2, 16, True, (768, 12, 12, 3072)),
    "qwen35_2b": (2048, 24, 6144, 8, 2, 16, True, (1024, 24, 16, 4096)),
    "qwen35_4b": (2560, 32, 9216, 16, 4, 32, True, (1024, 24, 16, 4096)),
    "qwen35_9b": (4096, 32, 12288, 16, 4, 32, False, (1152, 27, 16, 4304)),
}
OPT = {"opt_2b7": (2560, 32, 32), "opt_6b7": (4096, 32, 32)}
T5 = {"flant5_xl": (2048, 32, 5120), "flant5_xxl": (4096, 64, 10240)}


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def rwkv(version: int, size: str) -> Shapes:
    layers, d = RWKV[size]
    shapes: Shapes = {"emb.weight": (65536, d), "blocks.0.ln0.weight": (d,), "blocks.0.ln0.bias": (d,)}
    for layer in range(layers):
        block = {f"ln{n}.{leaf}": (d,) for n in (1, 2) for leaf in ("weight", "bias")}
        block |= {"att.ln_x.weight": (d,), "att.ln_x.bias": (d,)}
        block |= {f"att.{name}.weight": (d, d) for name in ("receptance", "key", "value", "output")}
        block |= rwkv7(d, RANKS7[size]) if version == 7 else rwkv56(version, d)
        shapes |= under(f"blocks.{layer}.", block)
    return shapes | {"ln_out.weight": (d,), "ln_out.bias": (d,), "head.weight": (65536, d)}


def rwkv56(version: int, d: int) -> Shapes:
    ffn, heads = int(d * 3.5) // 32 * 32, d // 64
    mix, decay = (64, 128) if d >= 4096 else (32, 64)
    vector = (1, 1, d)
    if version == 5:
        block: Shapes = {f"att.time_mix_{name}": vector for name in "kvrg"} | {"att.time_decay": (heads, 64)}
        block |= {f"ffn.time_mix_{name}": vector for name in "kr"}
    else:
        block = {f"att.time_maa_{name}": vector for name in "xwkvrg"} | {"att.time_decay": vector}
        block |= {"att.time_maa_w1": (d, 5 * mix), "att.time_maa_w2": (5, mix, d)}
        block |= {"att.time_decay_w1": (d, decay), "att.time_decay_w2": (decay, d)}
        block |= {f"ffn.time_maa_{name}": vector for name in "kr"}
    block |= {"att.time_faaaa": (heads, 64), "att.gate.weight": (d, d)}
    return block | {"ffn.key.weight": (ffn, d), "ffn.receptance.weight": (d, d), "ffn.value.weight": (d, ffn)}


def rwkv7(d: int, ranks: tuple[int, ...]) -> Shapes:
    """The first layer has a residual like the others, which nothing reads."""
    vector = (1, 1, d)
    block: Shapes = {f"att.x_{name}": vector for name in "rwkvag"} | {"ffn.x_k": vector, "att.r_k": (d // 64, 64)}
    for name, rank in zip("wav", ranks, strict=False):
        block |= {f"att.{name}0": vector, f"att.{name}1": (d, rank), f"att.{name}2": (rank, d)}
    block |= {"att.g1": (d, ranks[3]), "att.g2": (ranks[3], d), "att.k_k": vector, "att.k_a": vector}
    return block | {"ffn.key.weight": (4 * d, d), "ffn.value.weight": (d, 4 * d)}


def mamba(width: int = 2560, layers: int = 64, vocab: int = 50280) -> Shapes:
    """Mamba of state-spaces, whose files hold the tied head a second time; 16 states a channel."""
    inner, rank = 2 * width, -(-width // 16)
    shapes: Shapes = {"backbone.embedding.weight": (vocab, width)}
    for layer in range(layers):
        mixer: Shapes = {"A_log": (inner, 16), "D": (inner,), "in_proj.weight": (2 * inner, width)}
        mixer |= {"conv1d.weight": (inner, 1, 4), "conv1d.bias": (inner,), "x_proj.weight": (rank + 32, inner)}
        mixer |= {"dt_proj.weight": (inner, rank), "dt_proj.bias": (inner,), "out_proj.weight": (width, inner)}
        shapes |= under(f"backbone.layers.{layer}.", {"norm.weight": (width,), **under("mixer.", mixer)})
    return shapes | {"backbone.norm_f.weight": (width,), "lm_head.weight": (vocab, width)}


def of_transformers(name: str, config: object) -> Shapes:
    import transformers

    with torch.device("meta"):
        state = getattr(transformers, name)(config).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def llama_config(name: str) -> object:
    import transformers

    kind, vocab, width, layers, heads, groups, ffn, tied = LLAMA[name]
    return getattr(transformers, f"{kind}Config")(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=ffn,
        tie_word_embeddings=tied,
    )


def llama(name: str) -> Shapes:
    shapes = of_transformers(f"{LLAMA[name][0]}ForCausalLM", llama_config(name))
    return {key: shape for key, shape in shapes.items() if not (LLAMA[name][-1] and key == "lm_head.weight")}


def qwen35(name: str) -> Shapes:
    """Tower, merger and language model of Qwen3.5; its files also have a head that predicts several tokens."""
    import sys

    sys.modules["fla"] = None  # its Triton functions would be taken at the import
    import transformers

    width, layers, ffn, heads, groups, delta, tied, (vision_width, depth, vision_heads, vision_ffn) = QWEN35[name]
    text = {
        "vocab_size": 248320,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": 256,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": delta,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "tie_word_embeddings": tied,
    }
    vision = {
        "hidden_size": vision_width,
        "depth": depth,
        "num_heads": vision_heads,
        "intermediate_size": vision_ffn,
        "out_hidden_size": width,
        "num_position_embeddings": 2304,
    }
    config = transformers.Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=tied)
    shapes = of_transformers("Qwen3_5ForConditionalGeneration", config)
    return {key: shape for key, shape in shapes.items() if not (tied and key == "lm_head.weight")}


def infinitevl() -> Shapes:
    """InfiniteVL: a language model by its code, the tower and the merger of Qwen2.5-VL by the class of transformers."""
    import transformers

    width, ffn = 2048, 11008
    delta: Shapes = {
        f"{one}_proj.weight": (rows, width)
        for one, rows in zip("qkvgab", (2048, 2048, 4096, 4096, 16, 16), strict=True)
    }
    delta |= {f"{one}_conv1d.weight": (rows, 1, 4) for one, rows in zip("qkv", (2048, 2048, 4096), strict=True)}
    delta |= {"A_log": (16,), "dt_bias": (16,), "o_norm.weight": (256,), "o_proj.weight": (width, 4096)}
    attention: Shapes = {f"{one}_proj.weight": (rows, width) for one, rows in zip("qkv", (2048, 256, 256), strict=True)}
    attention |= {f"{one}_proj.bias": (rows,) for one, rows in zip("qkv", (2048, 256, 256), strict=True)}
    attention |= {"o_proj.weight": (width, 2048)}
    shapes: Shapes = {"model.embed_tokens.weight": (151936, width), "model.norm.weight": (width,)}
    for layer in range(36):
        block = under("self_attn.", delta if layer % 4 else attention)
        block |= {f"mlp.{one}_proj.weight": (ffn, width) for one in ("gate", "up")}
        block |= {"mlp.down_proj.weight": (width, ffn), "input_layernorm.weight": (width,)}
        shapes |= under(f"model.layers.{layer}.", block | {"post_attention_layernorm.weight": (width,)})
    vision = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": width}
    whole = of_transformers("Qwen2_5_VLModel", transformers.Qwen2_5_VLConfig(vision_config=vision))
    return shapes | {name: shape for name, shape in whole.items() if name.startswith("visual.")}


def gguf(name: str) -> Shapes:
    """llama.cpp's names; those of Hugging Face, one by one."""
    names = {
        r"model\.embed_tokens": "token_embd",
        r"model\.norm": "output_norm",
        r"model\.layers\.(\d+)\.input_layernorm": r"blk.\1.attn_norm",
        r"model\.layers\.(\d+)\.post_attention_layernorm": r"blk.\1.ffn_norm",
        r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj": r"blk.\1.attn_\2",
        r"model\.layers\.(\d+)\.self_attn\.o_proj": r"blk.\1.attn_output",
        r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj": r"blk.\1.ffn_\2",
    }
    shapes = {}
    for key, shape in llama(name).items():
        for theirs, ours in names.items():
            key = re.sub(f"^{theirs}(?=\\.)", ours, key)
        shapes[key] = shape
    return shapes


def opt_config(name: str) -> object:
    import transformers

    width, layers, heads = OPT[name]
    return transformers.OPTConfig(
        vocab_size=50272,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        ffn_dim=4 * width,
        word_embed_proj_dim=width,
    )


def t5_config(name: str) -> object:
    import transformers

    width, heads, ffn = T5[name]
    return transformers.T5Config(
        vocab_size=32128,
        d_model=width,
        num_layers=24,
        num_heads=heads,
        d_kv=64,
        d_ff=ffn,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )


def seq2seq(name: str) -> Shapes:
    """OPT and FlanT5 as the hub has them."""
    if name in OPT:
        return of_transformers("OPTForCausalLM", opt_config(name))
    return of_transformers("T5ForConditionalGeneration", t5_config(name))
