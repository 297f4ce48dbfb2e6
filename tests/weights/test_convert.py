"""Bare files become cards and checkpoints, and come back as they were."""

import json
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mmrnn.backbones import (
    GLM,
    RWKV5,
    RWKV6,
    RWKV7,
    GatedCrossAttention,
    Hybrid,
    Mamba,
    TinyAttention,
    Transformer,
    VisualChannelMix,
    VisualExpert,
)
from mmrnn.checkpoints.convert import make_card, recognise, to_file, to_folder
from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.connectors import (
    MLP,
    BeginEndTokens,
    ConvMLP,
    GatedLinear,
    GatedMLP,
    Linear,
    PatchMerger,
    Perceiver,
    Pool,
    QFormer,
    Resampler,
    RowSeparators,
    Sequential,
    TextQFormer,
    TokenCompressor,
)
from mmrnn.encoders import EVEPatchEmbed, QwenViT, RecurrentEncoder, WhisperEncoder
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.training.build import make_objective
from mmrnn.types import Objective
from mmrnn.weights import WeightsError, load
from mmrnn.weights.export import export
from mmrnn.weights.registry import FORMATS

RWKV = {"vocab": 40, "width": 32, "depth": 2, "head_size": 8, "heads": 4, "ffn": 96}
LLAMA = {"vocab": 40, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "head_size": 8, "ffn": 48, "rope_theta": 5e5}
HEADED = ("lavis_opt_proj", "lavis_t5_proj", "lavis_llm_proj")
MAMBA = {"vocab": 40, "width": 32, "depth": 2, "state_size": 4, "rank": 3, "kernel": 3}
WHISPER = {"mels": 8, "width": 64, "depth": 2, "heads": 1, "ffn": 96, "positions": 20}
QUERIES = {"queries": 5, "width": 128, "depth": 4, "heads": 2, "ffn": 24}

PARTS = {
    "rwkv5": partial(RWKV5, **RWKV),
    "rwkv5 without gate": partial(RWKV5, **RWKV, gate=False),
    "rwkv6": partial(RWKV6, **RWKV, mix_rank=5, decay_rank=6),
    "rwkv6 with a state": partial(RWKV6, **RWKV, mix_rank=5, decay_rank=6, learned_state=True),
    "rwkv7": partial(RWKV7, **RWKV, decay_rank=5, rate_rank=6, residual_rank=7, gate_rank=8),
    "rwkv7 with a state": partial(
        RWKV7, **RWKV, decay_rank=5, rate_rank=6, residual_rank=7, gate_rank=8, learned_state=True
    ),
    "llama": partial(Transformer, **LLAMA),
    "llama of qwen": partial(Transformer, **LLAMA, bias=True, tie_embeddings=True),
    "llama of qwen3": partial(Transformer, **LLAMA, qk_norm=True),
    "llava mlp": partial(MLP, 12, 20),
    "prismatic mlp": partial(MLP, 12, 20, depth=3),
    "llava_hf mlp": partial(MLP, 12, 20),
    "minigpt linear": partial(Linear, 12, 20),
    "visualrwkv_v7 gated": partial(GatedLinear, 12, 20),
    "visualrwkv_hd gated": partial(GatedMLP, 12, 20),
    "lavis qformer": partial(QFormer, 12, **QUERIES),
    "blip2_hf qformer": partial(QFormer, 12, **QUERIES),
    "mamba": partial(Mamba, **MAMBA),
    "mamba_hf": partial(Mamba, **MAMBA),
    "whisper": partial(WhisperEncoder, **WHISPER),
    "whisper_encoder": partial(WhisperEncoder, **WHISPER),
}
CONFIG = {"num_attention_heads": 4, "rope_theta": 5e5, "rms_norm_eps": 1e-5}


def filled(part):
    """Every tensor is random, also those that start as zeros or ones."""
    for value in part.state_dict().values():
        value.copy_(torch.randn(value.shape))
    return part


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back(name, suffix, tmp_path):
    format = name.split()[0]
    part = filled(PARTS[name]())
    theirs = {key: value.bfloat16().contiguous() for key, value in export(part, format).items()}
    file = tmp_path / "theirs" / f"model{suffix}"
    file.parent.mkdir()
    torch.save(theirs, file) if suffix == ".pth" else save_file(theirs, str(file))
    (file.parent / "config.json").write_text(json.dumps(CONFIG))
    # Nothing in its tensors tells HD from UHD.
    report = to_folder(file, tmp_path / "ours", format=format if name == "visualrwkv_hd gated" else None)
    assert report.format == format
    assert report.loaded == len(part.state_dict())
    (card,) = (tmp_path / "ours").glob("*/ours.yaml")
    knobs = yaml.safe_load(card.read_text())
    expected = PARTS[name].keywords
    assert {knob: knobs[knob] for knob in expected} == expected
    inverse = tmp_path / f"back{suffix}"
    assert to_file(tmp_path / "ours", inverse, format) == len(theirs)
    again = read(inverse)
    assert set(again) == set(theirs)
    assert all(torch.equal(again[key], theirs[key]) and again[key].dtype == theirs[key].dtype for key in theirs)


MINI = {"vocab": 40, "width": 32, "depth": 2, "head_size": 8}
TOWER = {"name": "vit_large_patch14_clip_quickgelu_336", "size": 16, "depth": 1, "layer": -1}


def inside(preset, place, *overrides):
    """A part out of a small preset."""

    def make():
        cfg = compose(f"model={preset}", *overrides)
        model = build(cfg)
        if place == "objective":
            make_objective(plain(cfg)["objective"], model)
        return model.get_submodule(place)

    return make


EXAMPLES = {
    RWKV5: partial(RWKV5, **MINI),
    RWKV6: partial(RWKV6, **MINI, mix_rank=5, decay_rank=6, learned_state=True),
    RWKV7: partial(RWKV7, **MINI, learned_state=True),
    # Start states have a name in the original project alone.
    **{(RWKV6, name): partial(RWKV6, **MINI, mix_rank=5, decay_rank=6) for name in ("hf_rwkv6", "fla")},
    (RWKV7, "fla"): partial(RWKV7, **MINI),
    Transformer: partial(Transformer, **LLAMA),
    **{(Transformer, name): partial(Transformer, **{**LLAMA, "kv_heads": 4}) for name in ("cogvlm_hf", "cogvlm_sat")},
    (Transformer, "qwen_vl"): partial(Transformer, **{**LLAMA, "kv_heads": 4}, bias=True),
    Linear: partial(Linear, 12, 20),
    MLP: partial(MLP, 12, 20),
    (MLP, "vila_downsample"): partial(MLP, 12, 20, norm=True),
    GatedMLP: partial(GatedMLP, 12, 20),
    GatedLinear: partial(GatedLinear, 12, 20),
    QFormer: partial(QFormer, 12, **QUERIES),
    **{(QFormer, name): partial(QFormer, 12, 20, **QUERIES) for name in HEADED},
    TextQFormer: partial(TextQFormer, 12, **QUERIES, vocab=9, positions=7),
    Resampler: partial(Resampler, 12, 32, queries=4, heads=2),
    GLM: partial(GLM, vocab=40, width=32, depth=2, heads=4, ffn=48),
    BeginEndTokens: inside("cogvlm_tiny", "modalities.image.connector"),
    VisualExpert: inside("cogvlm_tiny", "hook"),
    Perceiver: inside("flamingo_tiny", "modalities.image.connector.part"),
    GatedCrossAttention: inside("flamingo_rwkv_tiny", "hook"),
    EVEPatchEmbed: inside("eve_tiny", "modalities.image.encoder"),
    RowSeparators: partial(RowSeparators, 12, 20, part=MLP),
    TokenCompressor: inside("visualrwkv73_tiny", "modalities.image.connector"),
    RecurrentEncoder: inside("visualrwkv710_tiny", "modalities.image.encoder"),
    VisualChannelMix: inside("visualrwkv710_tiny", "hook"),
    TinyAttention: inside("visualrwkv5_hybrid_tiny", "hook"),
    Mamba: partial(Mamba, **MAMBA),
    ConvMLP: inside("modrwkv_tiny", "modalities.image.connector"),
    (Hybrid, "infinitevl"): inside("infinitevl_tiny", "backbone"),
    Hybrid: inside("qwen35_tiny", "backbone"),
    QwenViT: inside("qwen35_tiny", "modalities.image.encoder"),
    PatchMerger: inside("qwen35_tiny", "modalities.image.connector"),
    (QwenViT, "qwen25_vl"): inside("infinitevl_tiny", "modalities.image.encoder"),
    (PatchMerger, "qwen25_vl"): inside("infinitevl_tiny", "modalities.image.connector"),
    WhisperEncoder: partial(WhisperEncoder, **WHISPER),
    Objective: inside("blip2_tiny", "objective", "objective=blip2_tiny"),
}
"""Small part for each class or contract of a format, and for a (class, format) that needs another one."""

WRITABLE = list(dict.fromkeys((form.part, form.name) for form in FORMATS if form.writable))


@pytest.mark.parametrize(
    ("kind", "name"), WRITABLE, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_every_format_with_both_directions_goes_there_and_back(kind, name):
    """Every tensor gets a name of its own, and comes back under it as it was. A part that has none here fails."""
    make = EXAMPLES.get((kind, name), EXAMPLES.get(kind))
    assert make is not None, f"give EXAMPLES a small {kind.__name__} for the format {name}"
    part, twin = filled(make()), make()
    theirs = export(part, name)
    report = load(twin, theirs, format=name, strict=name != "instructblip_hf" or kind is not TextQFormer)
    assert report.format == name
    assert report.loaded == len(part.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(part.parameters(), twin.parameters(), strict=True))


CONVERTED = {(form.part, form.name) for form in FORMATS if form.writable and form.infer is not None}


def test_every_format_that_tells_sizes_goes_through_files():
    """Formats of one class that differ in a prefix alone stand for each other."""
    tried = {(PARTS[name].func, name.split()[0]) for name in PARTS}
    assert {kind for kind, _ in CONVERTED} == {kind for kind, _ in tried}
    assert tried <= CONVERTED


def test_the_card_is_chosen_by_its_name(tmp_path):
    part = filled(RWKV6(**RWKV, mix_rank=5, decay_rank=6))
    torch.save(export(part, "rwkv6"), tmp_path / "a.pth")
    to_folder(tmp_path / "a.pth", tmp_path / "finch")
    own = (f"weights.backbone={tmp_path / 'finch'}", "backbone=finch", "model=visualrwkv6_tiny", "~tokenizer")
    model = build(compose(*own, dirs=[tmp_path / "finch"]))
    assert torch.equal(model.backbone.output.weight, part.output.weight)


def whole(name="visualrwkv6_tiny", *overrides):
    model = build(compose(f"model={name}", *overrides))
    filled(model)
    return model


def test_a_run_writes_its_backbone_and_its_connector(tmp_path):
    model = whole("visualrwkv6_tiny", "connector=visualrwkv")
    save(model, tmp_path / "run")
    to_file(tmp_path / "run", tmp_path / "b.pth", "rwkv6", "backbone")
    twin = whole("visualrwkv6_tiny", "connector=visualrwkv")
    load(twin.backbone, tmp_path / "b.pth")
    assert torch.equal(twin.backbone.output.weight, model.backbone.output.weight)
    to_file(tmp_path / "run", tmp_path / "c.safetensors", "minigpt", "connector")
    assert list(load_file(str(tmp_path / "c.safetensors"))) == ["llama_proj.weight"]
    with pytest.raises(ConfigError, match="add --part backbone or --part connector"):
        to_file(tmp_path / "run", tmp_path / "b.pth", "rwkv6")


def test_a_released_visualrwkv(tmp_path, golden, params):
    """The file of a whole model in miniature: its tower is chosen by overrides, its backbone read from the tensors."""
    case, tensors = golden("visualrwkv6_bi")
    torch.save({name: value.clone() for name, value in params(tensors).items()}, tmp_path / "visual.pth")
    assert recognise(params(tensors)).name == "visualrwkv"
    arch = tower(params(tensors), case["config"]["vision"]["num_attention_heads"])
    report = to_folder(tmp_path / "visual.pth", tmp_path / "out", (*arch, "~tokenizer"))
    assert report.format == "visualrwkv"
    model = load_model(tmp_path / "out")
    assert torch.equal(model.backbone.output.weight, tensors["param/rwkv.head.weight"])
    assert model.config["backbone"]["mix_rank"] == tensors["param/rwkv.blocks.0.att.time_maa_w2"].shape[1]


def tower(source, heads):
    prefix = "vit.vision_model." if any(".vision_model." in name for name in source) else "vit."
    width, _, patch, _ = source[f"{prefix}embeddings.patch_embedding.weight"].shape
    side = round((source[f"{prefix}embeddings.position_embedding.weight"].shape[0] - 1) ** 0.5)
    depth = 1 + max(int(name.split("layers.")[1].split(".")[0]) for name in source if f"{prefix}encoder." in name)
    ffn = source[f"{prefix}encoder.layers.0.mlp.fc1.weight"].shape[0]
    sizes = f"{{embed_dim: {width}, num_heads: {heads}, patch_size: {patch}, mlp_ratio: {ffn / width}}}"
    return (f"encoder.size={side * patch}", f"encoder.depth={depth}", f"encoder.arch={sizes}")


def test_what_cannot_be_told_is_said(tmp_path):
    save_file({"a": torch.zeros(1)}, str(tmp_path / "a.safetensors"))
    with pytest.raises(WeightsError, match="no format whose sizes can be inferred"):
        to_folder(tmp_path / "a.safetensors", tmp_path / "out")
    torch.save(export(Transformer(**LLAMA), "llama"), tmp_path / "llama.pth")
    with pytest.raises(ValueError, match="number of heads is not in the tensors"):
        to_folder(tmp_path / "llama.pth", tmp_path / "out")
    gates = {name: torch.zeros(4, 4) for name in ("proj.weight", "gate.weight", "o_proj.weight")}
    torch.save(gates, tmp_path / "gates.pth")
    with pytest.raises(WeightsError, match=r"could be any of visualrwkv_hd \(GatedMLP\), visualrwkv_uhd \(MLP\)"):
        to_folder(tmp_path / "gates.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert to_folder(tmp_path / "gates.pth", tmp_path / "out", format="visualrwkv_uhd").loaded == 2
    with pytest.raises(ConfigError, match="is not empty"):
        to_folder(tmp_path / "gates.pth", tmp_path / "out", format="visualrwkv_uhd")
    with pytest.raises(WeightsError, match="no format 'rwkv6' can be written for MLP"):
        to_file(tmp_path / "out", tmp_path / "x.pth", "rwkv6")


def test_a_projection_behind_a_qformer_has_a_format_for_each_name():
    with pytest.raises(WeightsError, match=r"head\.weight has no name in the format 'lavis'"):
        export(QFormer(12, 20, **QUERIES), "lavis")
    assert "t5_proj.weight" in export(QFormer(12, 20, **QUERIES), "lavis_t5_proj")


def test_a_card_names_every_knob():
    part = Linear(12, 20, bias=False)
    form = recognise(export(part, "minigpt"))
    sizes = form.infer({"llama_proj.weight": torch.Size([20, 12])}, {})
    assert make_card(Linear, sizes) == ("connector", {"_target_": "mmrnn.connectors.Linear", "bias": False})
    assert sizes.wired == (12, 20)


def test_the_command(tmp_path, capsys):
    torch.save(export(RWKV5(**RWKV), "rwkv5"), tmp_path / "eagle.pth")
    assert main(["convert", str(tmp_path / "eagle.pth"), str(tmp_path / "eagle")]) == 0
    assert "format rwkv5" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "eagle"), str(tmp_path / "b.pth"), "--format", "rwkv5"]) == 0
    assert main(["convert", str(tmp_path / "eagle"), str(tmp_path / "b.pth")]) == 2
    assert main(["convert", str(tmp_path / "eagle")]) == 2
    assert main(["convert", "--fromat", "x"]) == 2


def test_a_chain_of_one_part_is_that_part():
    chain = filled(Sequential(12, 20, parts=[partial(Pool, grid=-1), Linear]))
    twin = Linear(12, 20)
    load(twin, {name.removeprefix("parts.1."): value for name, value in chain.state_dict().items()})
    assert torch.equal(twin.proj.weight, chain.parts[1].proj.weight)
