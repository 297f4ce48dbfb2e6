"""Bare files become cards and checkpoints, and come back as they were."""

import json
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mmrnn import cli
from mmrnn.backbones import RWKV5, RWKV6, Transformer
from mmrnn.cards import ConfigError
from mmrnn.checkpoint import load_model
from mmrnn.config import build, compose, plain
from mmrnn.connectors import MLP, Chain, GatedLinear, GatedMLP, Linear, Pool, QFormer
from mmrnn.convert import describe, recognise, to_file, to_folder
from mmrnn.training.run import make_objective
from mmrnn.weights import WeightsError, load
from mmrnn.weights.files import read
from mmrnn.weights.formats import FORMATS
from mmrnn.weights.names import export

RWKV = {"vocab": 40, "width": 32, "depth": 2, "head_size": 8, "heads": 4, "ffn": 96}
LLAMA = {"vocab": 40, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "head_size": 8, "ffn": 48, "theta": 5e5}
QUERIES = {"queries": 5, "width": 128, "depth": 4, "heads": 2, "ffn": 24}

PARTS = {
    "rwkv5": partial(RWKV5, **RWKV),
    "rwkv5 without gate": partial(RWKV5, **RWKV, gate=False),
    "rwkv6": partial(RWKV6, **RWKV, mix_rank=5, decay_rank=6),
    "rwkv6 with a state": partial(RWKV6, **RWKV, mix_rank=5, decay_rank=6, learned_state=True),
    "llama": partial(Transformer, **LLAMA),
    "llama of qwen": partial(Transformer, **LLAMA, bias=True, tied=True),
    "llama of qwen3": partial(Transformer, **LLAMA, qk_norm=True),
    "llava mlp": partial(MLP, 12, 20),
    "prismatic mlp": partial(MLP, 12, 20, depth=3),
    "llava_hf mlp": partial(MLP, 12, 20),
    "minigpt linear": partial(Linear, 12, 20),
    "visualrwkv_v7 gated": partial(GatedLinear, 12, 20),
    "lavis qformer": partial(QFormer, 12, **QUERIES),
    "blip2_hf qformer": partial(QFormer, 12, **QUERIES),
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
    report = to_folder(file, tmp_path / "ours")
    assert report.format == format
    assert report.loaded == len(part.state_dict())
    (card,) = (tmp_path / "ours").glob("*/ours.yaml")
    knobs = yaml.safe_load(card.read_text())
    expected = PARTS[name].keywords
    assert {knob: knobs[knob] for knob in expected} == expected
    back = tmp_path / f"back{suffix}"
    assert to_file(tmp_path / "ours", back, format) == len(theirs)
    again = read(back)
    assert set(again) == set(theirs)
    assert all(torch.equal(again[key], theirs[key]) and again[key].dtype == theirs[key].dtype for key in theirs)


def test_every_format_that_can_be_written_is_tried():
    """Others of the same kind differ in a prefix alone."""
    written = {(form.part, form.name) for form in FORMATS if form.both}
    tried = {(PARTS[name].func.__name__, name.split()[0]) for name in PARTS}
    towers = ("TimmTower", "TimmMaps", "ClipViT")
    assert {form for form in written - tried - INSIDE.keys() if form[0] not in (*CONNECTORS, *towers)} == set()


CONNECTORS = {"Linear": Linear, "MLP": MLP, "GatedMLP": GatedMLP}
WRITTEN = [form for form in FORMATS if form.both and form.part in CONNECTORS]


@pytest.mark.parametrize("form", WRITTEN, ids=lambda form: f"{form.part}-{form.name}")
def test_a_connector_under_every_name(form):
    make = partial(CONNECTORS[form.part], 12, 20, **({"norm": True} if form.name == "vila_downsample" else {}))
    part, twin = filled(make()), make()
    theirs = export(part, form.name)
    assert load(twin, theirs, format=form.name).loaded == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(part.parameters(), twin.parameters(), strict=True))


INSIDE = {
    ("Enclosed", "cogvlm_sat"): ("cogvlm_tiny", "senses.image.connector"),
    ("Enclosed", "cogvlm_hf"): ("cogvlm_tiny", "senses.image.connector"),
    ("Perceiver", "openflamingo"): ("flamingo_tiny", "senses.image.connector.part"),
    ("GatedCrossAttention", "openflamingo"): ("flamingo_rwkv_tiny", "hook"),
    ("EvePatch", "eve"): ("eve_tiny", "senses.image.encoder"),
    ("ContrastMatchGenerate", "lavis"): ("blip2_tiny", "objective"),
}
"""Parts that are written out of a model: a preset that has one, and where it is."""


@pytest.mark.parametrize(("form", "place"), INSIDE.items(), ids=lambda value: "-".join(value))
def test_a_part_of_a_design_comes_back(form, place):
    (kind, format), (preset, path) = form, place

    def part():
        model = build(compose(f"model={preset}"))
        if path == "objective":
            make_objective(plain(compose(f"model={preset}", "objective=blip2_tiny"))["objective"], model)
        return model.get_submodule(path)

    one, twin = filled(part()), part()
    assert type(one).__name__ == kind
    theirs = export(one, format)
    load(twin, theirs, format=format)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), twin.parameters(), strict=True))


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
    model.save(tmp_path / "run")
    to_file(tmp_path / "run", tmp_path / "b.pth", "rwkv6", "backbone")
    twin = whole("visualrwkv6_tiny", "connector=visualrwkv")
    load(twin.backbone, tmp_path / "b.pth")
    assert torch.equal(twin.backbone.output.weight, model.backbone.output.weight)
    to_file(tmp_path / "run", tmp_path / "c.safetensors", "minigpt", "connector")
    assert list(load_file(str(tmp_path / "c.safetensors"))) == ["llama_proj.weight"]
    with pytest.raises(ConfigError, match="say --part backbone or --part connector"):
        to_file(tmp_path / "run", tmp_path / "b.pth", "rwkv6")


def test_a_released_visualrwkv(tmp_path, golden, params):
    """The file of a whole model in miniature: its tower is told by overrides, its backbone by the tensors."""
    case, tensors = golden("visualrwkv6_bi")
    torch.save({name: value.clone() for name, value in params(tensors).items()}, tmp_path / "visual.pth")
    assert recognise(params(tensors)).name == "visualrwkv"
    arch = tower(params(tensors), case["config"]["vision"]["num_attention_heads"])
    report = to_folder(tmp_path / "visual.pth", tmp_path / "out", (*arch, "~tokenizer"))
    assert report.format == "visualrwkv"
    model, cfg = load_model(tmp_path / "out")
    assert torch.equal(model.backbone.output.weight, tensors["param/rwkv.head.weight"])
    assert cfg["backbone"]["mix_rank"] == tensors["param/rwkv.blocks.0.att.time_maa_w2"].shape[1]


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
    with pytest.raises(WeightsError, match="no format whose sizes can be told"):
        to_folder(tmp_path / "a.safetensors", tmp_path / "out")
    torch.save(export(Transformer(**LLAMA), "llama"), tmp_path / "llama.pth")
    with pytest.raises(ValueError, match="how many heads"):
        to_folder(tmp_path / "llama.pth", tmp_path / "out")
    gates = {name: torch.zeros(4, 4) for name in ("proj.weight", "gate.weight", "o_proj.weight")}
    torch.save(gates, tmp_path / "gates.pth")
    with pytest.raises(WeightsError, match=r"could be any of visualrwkv_hd \(GatedMLP\), visualrwkv_uhd \(MLP\)"):
        to_folder(tmp_path / "gates.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert to_folder(tmp_path / "gates.pth", tmp_path / "out", format="visualrwkv_uhd").loaded == 2
    with pytest.raises(ConfigError, match="is there already"):
        to_folder(tmp_path / "gates.pth", tmp_path / "out", format="visualrwkv_uhd")
    with pytest.raises(WeightsError, match="no format 'rwkv6' can be written for this part"):
        to_file(tmp_path / "out", tmp_path / "x.pth", "rwkv6")


def test_a_projection_behind_a_qformer_has_no_single_name():
    with pytest.raises(WeightsError, match=r"head\.weight could be any of opt_proj\.weight"):
        export(QFormer(12, 20, **QUERIES), "lavis")


def test_a_card_names_every_knob():
    part = Linear(12, 20, bias=False)
    form = recognise(export(part, "minigpt"))
    sizes = form.infer({"llama_proj.weight": torch.Size([20, 12])}, {})
    assert describe("Linear", sizes) == ("connector", {"_target_": "mmrnn.connectors.Linear", "bias": False})
    assert sizes.wired == (12, 20)


def test_the_command(tmp_path, capsys):
    torch.save(export(RWKV5(**RWKV), "rwkv5"), tmp_path / "eagle.pth")
    assert cli.main(["convert", str(tmp_path / "eagle.pth"), str(tmp_path / "eagle")]) == 0
    assert "format rwkv5" in capsys.readouterr().out
    assert cli.main(["convert", str(tmp_path / "eagle"), str(tmp_path / "b.pth"), "--format", "rwkv5"]) == 0
    assert cli.main(["convert", str(tmp_path / "eagle"), str(tmp_path / "b.pth")]) == 2
    assert cli.main(["convert", str(tmp_path / "eagle")]) == 2
    assert cli.main(["convert", "--fromat", "x"]) == 2


def test_a_chain_of_one_part_is_that_part():
    chain = filled(Chain(12, 20, parts=[partial(Pool, grid=-1), Linear]))
    twin = Linear(12, 20)
    load(twin, {name.removeprefix("parts.1."): value for name, value in chain.state_dict().items()})
    assert torch.equal(twin.proj.weight, chain.parts[1].proj.weight)
