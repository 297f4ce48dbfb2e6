"""Quantised copies of checkpoints: the same model when opened, smaller, and refused where they were tampered with."""

import json
import re

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.quantize import quantize_checkpoint
from mmrnn.checkpoints.save import save
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.io import shards
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.model.quantize import Int8
from mmrnn.weights import WeightsError, load

pytestmark = pytest.mark.filterwarnings("default:the native decoding step of RWKV:RuntimeWarning")

KEY = "backbone.blocks.0.channel_mix.key"
QUESTION, ANSWER = "what is this?", "a red wall"


@pytest.fixture
def records(tmp_path):
    """One image, one question and its answer, in LLaVA's form."""
    Image.new("RGB", (40, 24), "red").save(tmp_path / "wall.png")
    turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "1", "image": "wall.png", "conversations": turns}]))
    return ("data=llava", f"data.file={tmp_path}/data.json")


@pytest.fixture
def small(tmp_path, model):
    """A run, and its copy with codes."""
    save(model(), tmp_path / "run")
    quantize_checkpoint(tmp_path / "run", tmp_path / "small", ["quantize=int8"])
    return tmp_path / "small"


def test_a_copy_is_the_quantised_model(tmp_path, model, same):
    one = model()
    save(one, tmp_path / "run")
    size = quantize_checkpoint(tmp_path / "run", tmp_path / "small", ["quantize=int8", "quantize.matrices=fp32"])
    Int8()(one)
    loaded = load_model(tmp_path / "small")
    assert same(one, loaded)
    assert loaded.config["quantize"]["matrices"] == "fp32"
    assert size.layers == 16
    assert size.after < size.before
    assert size.after == sum(value.nbytes for value in read(tmp_path / "small" / shards.MODEL).values())


@torch.no_grad()
def test_a_copy_of_4_bit_codes_with_awq(tmp_path, model, records):
    """The file holds two codes a byte with scales in bf16; the opened model multiplies as the one that was written."""
    save(model(), tmp_path / "run")
    words = ["quantize=int4", "quantize.awq_samples=2", *records]
    quantize_checkpoint(tmp_path / "run", tmp_path / "small", words)
    tensors = read(tmp_path / "small" / shards.MODEL)
    found = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items() if name.startswith(KEY)}
    assert found[f"{KEY}.codes"] == ((96, 16), torch.uint8)
    assert found[f"{KEY}.scales"] == found[f"{KEY}.zeros"] == ((96, 1), torch.bfloat16)
    assert found[f"{KEY}.input_scales"] == ((32,), torch.bfloat16)
    loaded = load_model(tmp_path / "small")
    layer, x = loaded.get_submodule(KEY), torch.randn(3, 32)
    assert loaded.config["data"]["file"] == str(tmp_path / "data.json")
    expected = x @ layer.weight.T
    torch.testing.assert_close(layer(x), expected, rtol=0.02, atol=0.02 * float(expected.std()))


def test_matrices_are_stored_in_bf16_and_vectors_in_fp32(small):
    tensors = read(small / shards.MODEL)
    kinds = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
    assert kinds[f"{KEY}.codes"] == "int8"
    assert kinds[f"{KEY}.scales"] == kinds["backbone.norm.weight"] == "float32"
    assert kinds["backbone.output.weight"] == kinds["backbone.embedding.weight"] == "bfloat16"
    assert load_model(small).backbone.output.weight.dtype == torch.float32


def test_a_model_that_was_quantised_in_memory_is_saved_and_opened(tmp_path, model, same):
    one = model("quantize=int4")
    mmrnn.save(one, tmp_path / "small")
    assert same(one, mmrnn.load(tmp_path / "small").model)


def test_the_card_counts_the_weights_that_codes_stand_for(small):
    rows = [line for line in (small / "README.md").read_text().splitlines() if line.startswith("| language")]
    assert rows == [line for line in (small.parent / "run" / "README.md").read_text().splitlines() if line in rows]


def test_weights_are_computed_from_codes(tmp_path, small):
    size = quantize_checkpoint(small, tmp_path / "full", ["quantize=none"])
    assert size.layers == 0
    full, codes = load_model(tmp_path / "full"), load_model(small)
    weight = full.get_submodule(KEY).weight
    assert torch.equal(weight, codes.get_submodule(KEY).weight)
    file = tmp_path / "backbone.safetensors"
    assert main(["convert", str(small), str(file), "--part", "backbone", "--format", "rwkv6"]) == 0
    assert torch.equal(read(file)["blocks.0.ffn.key.weight"], weight)


def test_what_is_not_quantised_again(tmp_path, small, capsys):
    assert main(["convert", str(small), str(tmp_path / "again"), "quantize=int8"]) == 2
    assert "quantize: the model is quantised already: quantise the one that it was made from" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


@torch.no_grad()
def test_a_lora_is_merged_before(tmp_path, model):
    pytest.importorskip("peft")
    one = model("adapter=lora_rwkv", "adapter.rank=2", "adapter.dropout=0.0").eval()
    for name, value in one.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value)
    save(one, tmp_path / "run")
    quantize_checkpoint(tmp_path / "run", tmp_path / "small", ["quantize=int8"])
    loaded = load_model(tmp_path / "small")
    assert loaded.config["adapter"] is None
    wrapped = one.backbone.blocks[0].time_mix.key
    merged = wrapped.base_layer.weight + wrapped.get_delta_weight("default")
    torch.testing.assert_close(
        loaded.backbone.blocks[0].time_mix.key.weight, merged, atol=float(merged.abs().max() / 250), rtol=0
    )


def test_a_base_is_part_of_the_copy(tmp_path, model, same):
    """A run that holds its connector alone becomes a whole model."""
    base = model()
    save(base, tmp_path / "base")
    one = model(f"weights.model={tmp_path / 'base'}", seed=1)
    save(one, tmp_path / "run", only=["connector"])
    quantize_checkpoint(tmp_path / "run", tmp_path / "small", ["quantize=int8", "quantize.matrices=fp32"])
    (tmp_path / "base").rename(tmp_path / "gone")
    Int8()(one)
    assert same(one, load_model(tmp_path / "small"))


TAMPERED = {
    "another type of codes": (lambda tensors: {f"{KEY}.codes": tensors[f"{KEY}.codes"].int()}, "of another kind"),
    "codes of floats": (lambda tensors: {f"{KEY}.codes": tensors[f"{KEY}.codes"].float()}, "of another kind"),
    "short codes": (lambda tensors: {f"{KEY}.codes": tensors[f"{KEY}.codes"][:-1].clone()}, "has the shape"),
    "long codes": (lambda tensors: {f"{KEY}.codes": torch.zeros(999, 32, dtype=torch.int8)}, "of another shape"),
    "turned codes": (lambda tensors: {f"{KEY}.codes": tensors[f"{KEY}.codes"].T.contiguous()}, "of another shape"),
    "scales for each input": (lambda _: {f"{KEY}.scales": torch.ones(96, 32)}, "of another shape"),
    "one scale": (lambda _: {f"{KEY}.scales": torch.ones(1)}, "has the shape"),
    "integer scales": (lambda tensors: {f"{KEY}.scales": tensors[f"{KEY}.scales"].int()}, "of another kind"),
}


TAMPERED_4_BIT = {
    "a code a byte": (lambda _: {f"{KEY}.codes": torch.zeros(96, 32, dtype=torch.uint8)}, "of another shape"),
    "signed codes": (lambda tensors: {f"{KEY}.codes": tensors[f"{KEY}.codes"].to(torch.int8)}, "of another kind"),
    "zeros of another group": (lambda _: {f"{KEY}.zeros": torch.zeros(96, 2)}, "of another shape"),
    "scales of inputs": (lambda _: {f"{KEY}.input_scales": torch.ones(32)}, "unexpected"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampered_codes_are_refused(what, small):
    refuse(small, *TAMPERED[what])


@pytest.mark.parametrize("what", TAMPERED_4_BIT)
def test_tampered_4_bit_codes_are_refused(what, tmp_path, model):
    save(model("quantize=int4"), tmp_path)
    refuse(tmp_path, *TAMPERED_4_BIT[what])


def refuse(folder, change, message):
    tensors = read(folder / shards.MODEL)
    shards.write(folder, tensors | change(tensors), {})
    with pytest.raises((ConfigError, WeightsError), match=message):
        mmrnn.load(folder)


@pytest.mark.parametrize("line", ["group_size: 7", "group_size: 0", "awq_samples: -1", "awq_samples: 3"])
def test_knobs_that_do_not_fit_the_codes_are_refused(line, tmp_path, model):
    save(model("quantize=int4"), tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    name = line.partition(":")[0]
    changed = "\n".join(re.sub(rf"{name}: \d+$", line, each) for each in text.splitlines())
    (tmp_path / "config.yaml").write_text(changed)
    with pytest.raises((ConfigError, WeightsError), match=rf"quantize\.{name}|input_scales"):
        mmrnn.load(tmp_path)


def test_a_foreign_quantizer_is_refused(small):
    text = (small / "config.yaml").read_text()
    (small / "config.yaml").write_text(text.replace("mmrnn.model.quantize.Int8", "torchao.quantization.quantize_"))
    with pytest.raises(ConfigError, match=r"quantize\._target_: .* outside mmrnn"):
        mmrnn.load(small)


def test_codes_and_weights_are_told_apart(tmp_path, model, small):
    run = tmp_path / "run"
    (small / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(WeightsError, match="these weights are quantised: build the model with the same quantize"):
        mmrnn.load(small)
    card = "quantize:\n  _target_: mmrnn.model.quantize.Int8\n"
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + card)
    with pytest.raises(WeightsError, match="the model is quantised, and these weights are not"):
        mmrnn.load(run)
    with pytest.raises(WeightsError, match="the model is quantised, and these weights are not"):
        load(model("quantize=int8"), {f"base_model.model.{KEY}.lora_A.weight": torch.ones(2, 32)})


def test_training_is_refused(tmp_path, small, capsys):
    words = ["train", "model=visualrwkv6_tiny", f"out={tmp_path / 'out'}", "stage.instruct.steps=1"]
    assert main([*words, "quantize=int8"]) == 2
    assert "quantize: codes are not trained; train with quantize=none" in capsys.readouterr().err
    assert main(["plan", "model=visualrwkv6_tiny", "quantize=int8"]) == 2
    assert "quantize: codes are not trained" in capsys.readouterr().err
    assert main([*words, "encoder=patch_tiny", f"weights.model={small}"]) == 2
    assert "weights.model: these weights are quantised" in capsys.readouterr().err
    assert not (tmp_path / "out" / shards.MODEL).exists()


WRONG = {
    "quantize=int9": "int9",
    "~quantize": "no card is chosen",
    "quantize=int8 backbone=rwkv6_tiny": "only quantize and data can be chosen",
    "quantize=int8 quantize.skip=[nothing]": "matches no linear layer",
    "quantize=int4 quantize.group_size=7": "quantize.group_size: expected one of 32, 64, 128, got 7",
    "quantize=int4 quantize.groups=32": "quantize.groups",
    "quantize=int8 --part backbone": "--format and --part are for published weights",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words(words, tmp_path, model, capsys):
    save(model(), tmp_path / "run")
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "small"), *words.split()]) == 2
    assert WRONG[words] in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_missing_package_is_named(tmp_path, model, monkeypatch, capsys):
    save(model(), tmp_path / "run")
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "small"), "quantize=int8"]) == 1
    assert "pip install 'mmrnn[quantize]'" in capsys.readouterr().err


def test_a_quantised_model_opens_without_torchao(small, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchao", None)
    assert isinstance(mmrnn.load(small).ask(None, "what?", max_new_tokens=2), str)


def test_train_convert_ask(tmp_path, records, capsys):
    """The commands as a user types them: a tiny model learns an answer, and its copies of codes give it."""
    short = ("stage.instruct.lr=0.01", "stage.instruct.steps=60", "schedule.min_lr=0.001", "schedule.warmup=0")
    data = ("stage.instruct.batch_size=1", "evaluate.samples=0", *records)
    run = str(tmp_path / "run")
    assert main(["train", "model=visualrwkv6_tiny", *short, *data, f"out={run}"]) == 0
    for words in (["quantize=int8"], ["quantize=int4"], ["quantize=int4", "quantize.awq_samples=4"]):
        small = str(tmp_path / "_".join(words))
        assert main(["convert", run, small, *words]) == 0
        assert "layers hold codes" in capsys.readouterr().out
        assert main(["ask", str(tmp_path / "wall.png"), QUESTION, "--run", small, "--max-new-tokens", "24"]) == 0
        assert capsys.readouterr().out == f"{ANSWER}\n"


def test_compose_and_build_take_it(same):
    torch.manual_seed(0)
    one = build(compose("model=visualrwkv6_tiny", "quantize=int8"))
    torch.manual_seed(0)
    other = build(compose("model=visualrwkv6_tiny"))
    Int8()(other)
    assert same(one, other)
