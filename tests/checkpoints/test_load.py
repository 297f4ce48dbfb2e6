"""Loaded checkpoints: their tensors, and what is wrong with a folder that is none."""

import json

import pytest
import torch
from PIL import Image

import mmrnn
from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.cli.main import main
from mmrnn.config.error import ConfigError
from mmrnn.io import shards
from mmrnn.weights import WeightsError


def test_a_loaded_model_learns_and_leaves_its_file_alone(tmp_path, model, same):
    """Its tensors are those of the mapped file, until they are written to."""
    one = model()
    save(one, tmp_path)
    loaded = load_model(tmp_path)
    with torch.no_grad():
        for value in loaded.parameters():
            value.add_(1)
    assert same(one, load_model(tmp_path))
    save(loaded, tmp_path)
    assert same(loaded, load_model(tmp_path))


def test_an_assistant_is_ready_to_answer(tmp_path, model):
    save(model(), tmp_path)
    assistant = mmrnn.load(tmp_path)
    assert not assistant.model.training
    assert assistant.model.config["backbone"]["_target_"] == "mmrnn.backbones.RWKV6"
    assert load_model(str(tmp_path)).training


def test_missing_tensors_need_a_base(tmp_path, model):
    one = model()
    save(one, tmp_path)
    shards.write(tmp_path, {name: value for name, value in one.state_dict().items() if "output" not in name}, {})
    with pytest.raises(WeightsError, match=r"backbone\.blocks\.0\.time_mix\.output\.weight .* names no base"):
        mmrnn.load(tmp_path)


def test_foreign_tensors_are_refused(tmp_path, model):
    one = model()
    save(one, tmp_path)
    shards.write(tmp_path, {**one.state_dict(), "surprise": torch.zeros(1)}, {})
    with pytest.raises(WeightsError, match="unexpected: surprise"):
        mmrnn.load(tmp_path)


HOSTILE = {
    "a foreign class": ("backbone: {_target_: os.system, command: touch ran}", "outside mmrnn"),
    "no mapping": ("[1, 2]", "is no configuration"),
    "an object": ("a: !!python/object/apply:os.system [touch ran]", "is no configuration"),
    "aliases": ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", "holds aliases"),
    "depth": ("[" * 20_000, "is no configuration"),
    "binary": ("\x00\x01", "is no configuration"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_configurations(what, tmp_path, monkeypatch, model, files):
    monkeypatch.chdir(tmp_path)
    text, message = HOSTILE[what]
    save(model(), tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ConfigError, match=message):
        mmrnn.load(tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert files(tmp_path) == ["run"]


def test_a_configuration_of_a_trusted_package(tmp_path, monkeypatch, model, same):
    """A class outside mmrnn is built only where its package is named."""
    (tmp_path / "theirs.py").write_text("from mmrnn.tokenizers import DemoTokenizer\nclass Mine(DemoTokenizer): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    one = model()
    save(one, tmp_path / "run", config={**one.config, "tokenizer": {"_target_": "theirs.Mine"}})
    with pytest.raises(ConfigError, match="outside mmrnn"):
        mmrnn.load(tmp_path / "run")
    assert type(mmrnn.load(tmp_path / "run", trusted=["theirs"]).tokenizer).__name__ == "Mine"
    assert same(one, mmrnn.from_pretrained(tmp_path / "run", trusted=["theirs"]))


def test_verbs_that_load_a_model_take_trusted_packages(tmp_path, monkeypatch, model, capsys):
    (tmp_path / "parts_of_others.py").write_text(
        "from mmrnn.backbones import RWKV6\nfrom mmrnn.tokenizers import DemoTokenizer\n"
        "class Mine(DemoTokenizer): pass\nclass Own(RWKV6): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    one = model()
    backbone = {**one.config["backbone"], "_target_": "parts_of_others.Own"}
    save(
        one,
        tmp_path / "run",
        config={**one.config, "tokenizer": {"_target_": "parts_of_others.Mine"}, "backbone": backbone},
    )
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    ask = ["ask", str(tmp_path / "a.png"), "what?", "--run", str(tmp_path / "run"), "--max-new-tokens", "2"]
    convert = ["convert", str(tmp_path / "run"), str(tmp_path / "a.pth"), "--part", "backbone", "--format", "rwkv6"]
    for words in (ask, convert):
        assert main(words) == 2
        assert "outside mmrnn; to trust it, set trusted=[parts_of_others]" in capsys.readouterr().err
        assert main([*words, "trusted=[parts_of_others]"]) == 0
        assert capsys.readouterr().out


def test_a_hostile_list_of_files(tmp_path):
    committed = tmp_path / "run" / ".saved"
    committed.mkdir(parents=True)
    (committed / "files.json").write_text(json.dumps({"files": ["../../stolen"]}))
    with pytest.raises(ValueError, match="names files outside of its folder"):
        mmrnn.load(tmp_path / "run")


def test_a_commit_that_was_not_moved_is_read_where_it_is(tmp_path, model, same, files):
    """A reader changes nothing, and takes the new files however many of them were moved before the writer died."""
    old, new = model(), model(seed=1)
    save(new, tmp_path / "new", max_shard_size=100_000)
    names = files(tmp_path / "new")
    for moved in range(len(names) + 1):
        run = tmp_path / f"run{moved}"
        save(old, run)
        (run / ".saved").mkdir()
        for index, name in enumerate(names):
            (run / name if index < moved else run / ".saved" / name).write_bytes((tmp_path / "new" / name).read_bytes())
        (run / ".saved" / "files.json").write_text(json.dumps({"files": names}))
        before = sorted(run.rglob("*"))
        assert same(new, mmrnn.load(run).model)
        assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("call", [mmrnn.load, mmrnn.from_pretrained, load_model])
def test_nothing_to_load(tmp_path, call):
    with pytest.raises(ConfigError, match="holds no model"):
        call(tmp_path)
    with pytest.raises(ConfigError, match="holds no model"):
        call(tmp_path / "not there")
