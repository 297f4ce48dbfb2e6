"""Writes `../manifests/`: names, shapes and types of the tensors of published checkpoints, without their values.

    python tests/weights/published

Nothing of mmrnn is used: names and shapes are those of the official code, or of the classes of transformers and timm
on the meta device. Which preset stands for which of them, and how many parameters they have, is in `../presets.yaml`.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import designs as d
import languages as l
import towers as t
import visualrwkv as v

FOLDER = Path(__file__).parents[1] / "manifests"
Made = tuple[str, str, Callable[[], l.Shapes]]


def rwkv() -> Iterator[tuple[str, Made]]:
    sizes = {5: ("0b1", "0b4", "1b5", "3b", "7b"), 6: ("0b1", "0b4", "1b6", "3b", "7b", "14b"), 7: tuple(l.RANKS7)}
    for version, known in sizes.items():
        for size in known:
            about = f"RWKV-{version} World {size}"
            yield f"rwkv{version}_{size}", (about, "BF16", lambda v=version, s=size: l.rwkv(v, s))
    for version, known in {5: ("1b5", "3b", "7b"), 6: ("1b6", "3b", "7b")}.items():
        for size in known:
            about = f"VisualRWKV-{version} {size}" + (" (both files)" if version == 5 else "")
            kind = "F16" if version == 5 else "BF16"
            yield f"visualrwkv{version}_{size}", (about, kind, lambda v=version, s=size: v.visualrwkv(v, s))
    yield "visualrwkv5_7b_hybrid", ("VisualRWKV-5.2 7b, by its code", "BF16", v.hybrid)
    yield "visualrwkv_hd_1b6", ("VisualRWKV-v0612-1B6 (HD)", "BF16", lambda: v.three_towers(6, "1b6"))
    yield "visualrwkv73_0b1", ("VisualRWKV v7.03 and v7.04 0b1, by their code", "BF16", v.compressed)
    yield "visualrwkv710_0b1", ("VisualRWKV v7.10 0b1, by its code", "BF16", v.vision_rwkv)
    yield "visualrwkv_uhd_1b6", ("VisualRWKV-v0613-1B6 (UHD), by its code", "BF16", v.uhd)
    for size in ("0b1", "0b4", "1b5"):
        yield f"visualrwkv7_{size}", (f"VisualRWKV-v0700-{size}", "BF16", lambda s=size: v.three_towers(7, s))
        yield f"visualrwkv71_{size}", (f"VisualRWKV v7.01 {size}, by its code", "BF16", lambda s=size: v.one_tower(s))


def languages() -> Iterator[tuple[str, Made]]:
    for name in l.LLAMA:
        yield name, (f"{name} as on the hub", "BF16", lambda n=name: l.llama(n))
    yield "smollm2_135m_gguf", ("SmolLM2-135M-Instruct.Q4_1.gguf", "F32", lambda: l.gguf("smollm2_135m"))
    yield "mamba_2b8", ("state-spaces/mamba-2.8b", "F32", l.mamba)
    for name in (*l.OPT, *l.T5):
        yield name, (f"{name} as on the hub", "F16", lambda n=name: l.seq2seq(n))


def towers() -> Iterator[tuple[str, Made]]:
    yield "clip_l14_224", ("openai/clip-vit-large-patch14", "F32", t.whole_clip)
    yield "clip_l14_336", ("openai/clip-vit-large-patch14-336, its vision side", "F32", t.clip)
    yield "eva_vit_g", ("eva_vit_g.pth of LAVIS, the blocks that it runs", "F16", t.eva_g)
    yield "efficientnet_lite0", ("efficientnet-lite0-57934424.pth", "F32", t.lite0)


def models() -> Iterator[tuple[str, Made]]:
    for size in ("7b", "13b"):
        card, width = f"llama2_{size}", l.LLAMA[f"llama2_{size}"][2]
        about = f"mm_projector.bin of liuhaotian/llava-pretrain-vicuna-{size}-v1.3"
        yield f"llava_{size}", (about, "F16", lambda w=width: d.affine("model.mm_projector", w, 1024))
        yield f"llava15_{size}", (f"liuhaotian/llava-v1.5-{size}", "F16", lambda c=card: d.llava(c))
        about = f"llava-hf/llava-1.5-{size}-hf as transformers 5 has it in memory"
        yield f"llava15_{size}_hf", (about, "F16", lambda c=card: d.llava_hf(c))
        yield f"llava16_{size}", (f"liuhaotian/llava-v1.6-vicuna-{size}", "F16", lambda c=card: d.llava16(c))
        about = f"llava-hf/llava-v1.6-vicuna-{size}-hf as transformers 5 has it in memory"
        yield f"llava16_{size}_hf", (about, "F16", lambda c=card: d.llava16_hf(c))
        yield f"vila_{size}", (f"Efficient-Large-Model/VILA-{size}", "F16", lambda c=card: d.llava(c))
        about = f"what MiniGPT-4 with Vicuna {size} has trained"
        yield f"minigpt4_{size}", (about, "F32", lambda w=width: d.affine("llama_proj", w, 768))
    for size, card in {"3b": "llama_2b7", "8b": "llama3_8b", "13b": "llama2_13b"}.items():
        about = f"VILA1.5-{size}, its three folders"
        yield f"vila15_{size}", (about, "BF16", lambda c=card: d.vila15(c, t.siglip(), 1152))
    yield "vila15_40b", ("VILA1.5-40b, its three folders", "BF16", lambda: d.vila15("yi_34b", t.intern(), 3200))
    yield "blip2_stage1", ("blip2_pretrained.pth of LAVIS", "F32", d.stage1)
    for name, width in {**{n: s[0] for n, s in l.OPT.items()}, **{n: s[0] for n, s in l.T5.items()}}.items():
        head = "opt_proj" if name in l.OPT else "t5_proj"
        yield f"blip2_{name}", (f"BLIP-2 with {name}, LAVIS", "F32", lambda h=head, w=width: d.blip2_lavis(h, w))
        yield f"blip2_{name}_hf", (f"BLIP-2 with {name}, Hugging Face", "F32", lambda n=name: d.blip2_hf(n))
    yield "minigptv2_7b", ("what MiniGPT-v2 has trained", "F32", d.minigptv2)
    yield "visualglm_6b_sat", ("VisualGLM-6B of SAT", "F16", lambda: d.visualglm(hub=False))
    yield "visualglm_6b", ("THUDM/visualglm-6b", "F16", lambda: d.visualglm(hub=True))
    yield "cogvlm_17b_sat", ("CogVLM-17B of SAT", "BF16", d.cogvlm_sat)
    yield "cogvlm_17b", ("THUDM/cogvlm-chat-hf", "BF16", d.cogvlm_hf)
    yield "qwen_vl_7b", ("Qwen/Qwen-VL", "BF16", d.qwen_vl)
    for name, size in {"qwen35_0b8": "0.8B", "qwen35_2b": "2B", "qwen35_4b": "4B", "qwen35_9b": "9B"}.items():
        yield name, (f"Qwen/Qwen3.5-{size}, by the class of transformers", "BF16", lambda n=name: l.qwen35(n))
    yield "cobra_3b", ("han1997/cobra, the file of its training: projector and language model", "F32", d.cobra)
    for size in ("0b4", "1b5", "2b9"):
        yield f"modrwkv_{size}", (f"ModRWKV with SigLIP2 {size}", "BF16", lambda s=size: d.modrwkv(s))
    yield "infinitevl_4b", ("hustvl/InfiniteVL, by its code", "BF16", l.infinitevl)
    yield "eve_7b", ("BAAI/EVE-7B-v1.0, and EVE-7B-HD-v1.0", "BF16", d.eve)
    yield "eve_7b_pretraining", ("EVE-7B with its teacher", "BF16", lambda: d.eve(training=True))
    yield "fuyu_8b", ("adept/fuyu-8b", "F16", lambda: d.fuyu(hub=True))
    yield "fuyu_8b_memory", ("adept/fuyu-8b as transformers 5 has it in memory", "F16", lambda: d.fuyu(hub=False))
    yield "openflamingo_9b", ("openflamingo/OpenFlamingo-9B-vitl-mpt7b", "F32", d.openflamingo)


def collapse(shapes: l.Shapes, dtype: str) -> dict[str, list]:
    """`blocks.{0..23}.ln1.weight` for names that differ in the first number alone, `{0..10..2}` for every second."""
    groups: dict[tuple, list[int]] = {}
    for name, shape in shapes.items():
        before, number, after = re.fullmatch(r"(.*?\.)(\d+)(\..*)|(.*)", name).group(1, 2, 3)
        groups.setdefault((before or name, after or "", shape), []).append(-1 if number is None else int(number))
    tensors = {}
    for (before, after, shape), numbers in groups.items():
        for run in runs(sorted(numbers)):
            step = run[1] - run[0] if len(run) > 1 else 1
            span = f"{{{run[0]}..{run[-1]}{f'..{step}' if step > 1 else ''}}}" if len(run) > 1 else str(run[0])
            tensors[f"{before}{'' if run[0] < 0 else span}{after}"] = [dtype, list(shape)]
    return tensors


def runs(numbers: list[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for number in numbers:
        if len(run) > 1 and number - run[-1] != run[1] - run[0]:
            yield run
            run = []
        run.append(number)
    yield run


def write(name: str, about: str, dtype: str, shapes: l.Shapes) -> None:
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in collapse(shapes, dtype).items())
    (FOLDER / f"{name}.json").write_text(f'{{\n "about": {json.dumps(about)},\n "tensors": {{\n{rows}\n }}\n}}\n')


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for group in (rwkv, languages, towers, models):
        for name, (about, dtype, make) in group():
            write(name, about, dtype, make())
