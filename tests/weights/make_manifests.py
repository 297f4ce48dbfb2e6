"""Writes `manifests/`: names, shapes and types of the tensors of published checkpoints, without their values.

    python tests/weights/make_manifests.py

Nothing of mmrnn is used: RWKV's names and shapes are those of the official training code (src/model.py of VisualRWKV),
the others come from the classes of transformers on the meta device, under the names that the released files have.
`parameters` are published numbers: the count of each part, for the tensors and for our model to be held to.
"""

import json
import re
from itertools import groupby
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "manifests"
Shapes = dict[str, tuple[int, ...]]

RWKV_SIZES = {  # layers, width; d_ffn is 3.5 times the width, a head 64 wide, the vocabulary 65536
    "0b1": (12, 768),
    "0b4": (24, 1024),
    "1b5": (24, 2048),
    "1b6": (24, 2048),
    "3b": (32, 2560),
    "7b": (32, 4096),
    "14b": (61, 4096),
}
LLAMA = {
    "llama2_7b": ("Llama", 32000, 4096, 32, 32, 32, 11008, False),
    "llama2_13b": ("Llama", 32000, 5120, 40, 40, 40, 13824, False),
    "llama3_8b": ("Llama", 128256, 4096, 32, 32, 8, 14336, False),
    "qwen2_0b5": ("Qwen2", 151936, 896, 24, 14, 2, 4864, True),
    "qwen2_1b5": ("Qwen2", 151936, 1536, 28, 12, 2, 8960, True),
    "qwen2_7b": ("Qwen2", 152064, 3584, 28, 28, 4, 18944, False),
    "smollm2_135m": ("Llama", 49152, 576, 30, 9, 3, 1536, True),
}
LLAMA_PARAMETERS = {
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama3_8b": 8_030_261_248,
    "qwen2_0b5": 494_032_768,
    "qwen2_1b5": 1_543_714_304,
    "qwen2_7b": 7_615_616_512,
    "smollm2_135m": 134_515_008,
}
CLIP_L_336 = 303_507_456
"""OpenAI's ViT-L/14 at 336 pixels without its projection."""

MLP2 = {"7b": 20_979_712, "13b": 31_467_520}


def rwkv(version: int, size: str) -> Shapes:
    layers, d = RWKV_SIZES[size]
    ffn, heads = int(d * 3.5) // 32 * 32, d // 64
    mix, decay = (64, 128) if d >= 4096 else (32, 64)
    vector = (1, 1, d)
    shapes: Shapes = {"emb.weight": (65536, d), "blocks.0.ln0.weight": (d,), "blocks.0.ln0.bias": (d,)}
    for layer in range(layers):
        block = {f"ln{n}.{leaf}": (d,) for n in (1, 2) for leaf in ("weight", "bias")}
        if version == 5:
            block |= {f"att.time_mix_{name}": vector for name in "kvrg"} | {"att.time_decay": (heads, 64)}
            block |= {f"ffn.time_mix_{name}": vector for name in "kr"}
        else:
            block |= {f"att.time_maa_{name}": vector for name in "xwkvrg"} | {"att.time_decay": vector}
            block |= {"att.time_maa_w1": (d, 5 * mix), "att.time_maa_w2": (5, mix, d)}
            block |= {"att.time_decay_w1": (d, decay), "att.time_decay_w2": (decay, d)}
            block |= {f"ffn.time_maa_{name}": vector for name in "kr"}
        block |= {f"att.{name}.weight": (d, d) for name in ("receptance", "key", "value", "gate", "output")}
        block |= {"att.time_faaaa": (heads, 64), "att.ln_x.weight": (d,), "att.ln_x.bias": (d,)}
        block |= {"ffn.key.weight": (ffn, d), "ffn.receptance.weight": (d, d), "ffn.value.weight": (d, ffn)}
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes | {"ln_out.weight": (d,), "ln_out.bias": (d,), "head.weight": (65536, d)}


def rwkv_parameters(version: int, size: str) -> int:
    """By the formula of the paper (arXiv 2404.05892, appendix), in powers of the width."""
    layers, d = RWKV_SIZES[size]
    per_layer = 14 if version == 5 else (464 if d < 4096 else 912)
    return 13 * d * d * layers + per_layer * d * layers + 4 * d + 2 * 65536 * d


def of_transformers(name: str, config: object) -> Shapes:
    import transformers

    with torch.device("meta"):
        state = getattr(transformers, name)(config).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def llama_config(card: str) -> object:
    import transformers

    kind, vocab, width, layers, heads, groups, ffn, tied = LLAMA[card]
    return getattr(transformers, f"{kind}Config")(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=ffn,
        tie_word_embeddings=tied,
    )


def llama(card: str) -> Shapes:
    shapes = of_transformers(f"{LLAMA[card][0]}ForCausalLM", llama_config(card))
    return {name: shape for name, shape in shapes.items() if not (LLAMA[card][-1] and name == "lm_head.weight")}


def clip_config() -> object:
    import transformers

    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return transformers.CLIPVisionConfig(**sizes, image_size=336, patch_size=14)


def clip(prefix: str) -> Shapes:
    """With the level `vision_model` that every file has and transformers 5 has not."""
    shapes = of_transformers("CLIPVisionModel", clip_config())
    return {f"{prefix}vision_model.{name.removeprefix('vision_model.')}": shape for name, shape in shapes.items()}


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def llava_hf(card: str) -> Shapes:
    import transformers

    config = transformers.LlavaConfig(text_config=llama_config(card), vision_config=clip_config())
    return of_transformers("LlavaForConditionalGeneration", config)


def gguf(card: str) -> Shapes:
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
    for name, shape in llama(card).items():
        for theirs, ours in names.items():
            name = re.sub(f"^{theirs}(?=\\.)", ours, name)
        shapes[name] = shape
    return shapes


def collapse(shapes: Shapes, dtype: str) -> dict[str, list]:
    """`blocks.{0..23}.ln1.weight` for names that differ in the first number alone."""
    groups: dict[tuple, list[int]] = {}
    for name, shape in shapes.items():
        before, number, after = re.fullmatch(r"(.*?\.)(\d+)(\..*)|(.*)", name).group(1, 2, 3)
        groups.setdefault((before or name, after or "", shape), []).append(-1 if number is None else int(number))
    tensors = {}
    for (before, after, shape), numbers in groups.items():
        for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
            run = [number for _, number in run]
            span = "" if run[0] < 0 else f"{{{run[0]}..{run[-1]}}}" if len(run) > 1 else str(run[0])
            tensors[f"{before}{span}{after}"] = [dtype, list(shape)]
    return tensors


def write(name: str, card: str, about: str, shapes: Shapes, dtype: str, **parameters: int) -> None:
    content = {"about": about, "card": card, "parameters": parameters, "tensors": collapse(shapes, dtype)}
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.pop("tensors").items())
    head = json.dumps(content, indent=1).removesuffix("\n}")
    (FOLDER / f"{name}.json").write_text(f'{head},\n "tensors": {{\n{rows}\n }}\n}}\n')


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for version, sizes in ((5, ("0b1", "0b4", "1b5", "3b", "7b")), (6, ("0b1", "0b4", "1b6", "3b", "7b", "14b"))):
        for size in sizes:
            count = rwkv_parameters(version, size)
            name, about = f"rwkv{version}_{size}", f"RWKV-{version} World {size}"
            write(name, f"backbone/{name}", about, rwkv(version, size), "BF16", backbone=count)
            if size not in ("1b5", "1b6", "3b", "7b"):
                continue
            width = RWKV_SIZES[size][1]
            language = rwkv(version, size) if version == 5 else prefixed("rwkv.", rwkv(version, size))
            write(
                f"visualrwkv{version}_{size}",
                f"model/visualrwkv{version}_{size}",
                f"VisualRWKV-{version} {size}" + (" (both files)" if version == 5 else ""),
                {**language, "proj.weight": (width, 1024), **clip("vit.")},
                "F16" if version == 5 else "BF16",
                backbone=count,
                connector=1024 * width,
                encoder=CLIP_L_336,
            )
    for card, count in LLAMA_PARAMETERS.items():
        write(card, f"backbone/{card}", f"{card} as on the hub", llama(card), "BF16", backbone=count)
    for size in ("7b", "13b"):
        card, width = f"llama2_{size}", LLAMA[f"llama2_{size}"][2]
        projector = {
            "model.mm_projector.0.weight": (width, 1024),
            "model.mm_projector.0.bias": (width,),
            "model.mm_projector.2.weight": (width, width),
            "model.mm_projector.2.bias": (width,),
        }
        parameters = {"backbone": LLAMA_PARAMETERS[card], "connector": MLP2[size], "encoder": CLIP_L_336}
        own = {**llama(card), **projector, **clip("model.vision_tower.vision_tower.")}
        write(f"llava15_{size}", f"model/llava15_{size}", f"liuhaotian/llava-v1.5-{size}", own, "F16", **parameters)
        about = f"llava-hf/llava-1.5-{size}-hf as transformers 5 has it in memory"
        write(f"llava15_{size}_hf", f"model/llava15_{size}", about, hf(card, width), "F16", **more(parameters, width))
    about = "SmolLM2-135M-Instruct.Q4_1.gguf"
    write("smollm2_135m_gguf", "backbone/smollm2_135m", about, gguf("smollm2_135m"), "F32", backbone=134_515_008)


def hf(card: str, width: int) -> Shapes:
    """The released one has 64 further rows of the vocabulary, for <image> and <pad>."""
    rows = 32064
    shapes = llava_hf(card)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        shapes[name] = (rows, width)
    return shapes


def more(parameters: dict[str, int], width: int) -> dict[str, int]:
    return {**parameters, "backbone": parameters["backbone"] + 2 * 64 * width}


if __name__ == "__main__":
    main()
