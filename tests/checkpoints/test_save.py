"""A saved model is the model: whole or as a part of a base, in shards, and never half of one."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import mmrnn
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.inference.load import load_model
from mmrnn.io import shards
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.weights import WeightsError

TINY = ("model=visualrwkv6_tiny", "encoder=patch_tiny")


def model(*overrides, seed=0):
    torch.manual_seed(seed)
    return build(compose(*TINY, *overrides))


def same(one, other) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_saved_and_loaded(tmp_path):
    one = model()
    save(one, tmp_path)
    assert files(tmp_path) == ["README.md", "config.yaml", "model.safetensors"]
    assistant = mmrnn.load(tmp_path)
    assert same(one, assistant.model)
    assert not any(value.is_meta for value in assistant.model.state_dict().values())
    assert isinstance(assistant.ask(None, "what?", max_new_tokens=2), str)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mmrnn\n")
    assert f"{sum(p.numel() for p in one.backbone.parameters()):,}" in card
    cfg = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert cfg["tokenizer"] == {"_target_": "mmrnn.tokenizers.DemoTokenizer"}


def test_a_loaded_model_learns_and_leaves_its_file_alone(tmp_path):
    """Its tensors are those of the mapped file, until they are written to."""
    one = model()
    save(one, tmp_path)
    loaded, _ = load_model(tmp_path)
    with torch.no_grad():
        for value in loaded.parameters():
            value.add_(1)
    assert same(one, load_model(tmp_path)[0])
    save(loaded, tmp_path)
    assert same(loaded, load_model(tmp_path)[0])


def test_a_model_made_by_hand_says_what_it_lacks(tmp_path):
    whole = model()
    with pytest.raises(ValueError, match="has no configuration to save"):
        save(mmrnn.VLM(whole.backbone, dict(whole.modalities)), tmp_path)


def test_shards_and_what_they_replace(tmp_path):
    one, two = model(), model(seed=1)
    save(one, tmp_path, max_shard_size=100_000)
    shards = [name for name in files(tmp_path) if name.startswith("model-")]
    assert len(shards) > 1
    assert all(
        (tmp_path / name).stat().st_size < 150_000 or "embedding" in str(list(read(tmp_path / name))) for name in shards
    )
    assert same(one, mmrnn.load(tmp_path).model)
    save(two, tmp_path)
    assert files(tmp_path) == ["README.md", "config.yaml", "model.safetensors"]
    assert same(two, mmrnn.load(tmp_path).model)


def test_a_part_against_a_base(tmp_path):
    base = model()
    save(base, tmp_path / "base")
    tuned = model(f"weights.model={tmp_path / 'base'}")
    assert same(base, tuned)
    with torch.no_grad():
        for value in tuned.modalities["image"].connector.parameters():
            value.add_(1)
    save(tuned, tmp_path / "tuned", only=["connector"])
    assert all(".connector." in name for name in read(tmp_path / "tuned"))
    assert "not in this checkpoint" in (tmp_path / "tuned" / "README.md").read_text()
    assert same(tuned, mmrnn.load(tmp_path / "tuned").model)
    # The base may itself be the files of single parts.
    torch.save(base.backbone.state_dict(), tmp_path / "backbone.pth")
    other = model(f"weights.backbone={tmp_path / 'backbone.pth'}", seed=3)
    save(other, tmp_path / "other", only=["connector", "encoder"])
    assert same(other, mmrnn.load(tmp_path / "other").model)


def test_a_part_without_a_base_is_refused(tmp_path):
    one = model()
    with pytest.raises(ValueError, match=r"is not in the checkpoint, and its configuration names no base for it"):
        save(one, tmp_path / "a", only=["connector"])
    with pytest.raises(ValueError, match="fits no tensor"):
        save(one, tmp_path / "a", only=["conector"])
    assert not (tmp_path / "a").exists()
    save(one, tmp_path / "b")
    shards.write(tmp_path / "b", {name: value for name, value in one.state_dict().items() if "output" not in name}, {})
    with pytest.raises(WeightsError, match=r"backbone\.blocks\.0\.time_mix\.output\.weight .* names no base"):
        mmrnn.load(tmp_path / "b")


def test_foreign_tensors_are_refused(tmp_path):
    one = model()
    save(one, tmp_path)
    shards.write(tmp_path, {**one.state_dict(), "surprise": torch.zeros(1)}, {})
    with pytest.raises(WeightsError, match="unexpected: surprise"):
        mmrnn.load(tmp_path)


HOSTILE = {
    "a class of somebody else's": ("backbone: {_target_: os.system, command: touch ran}", "outside mmrnn"),
    "no mapping": ("[1, 2]", "is no configuration"),
    "an object": ("a: !!python/object/apply:os.system [touch ran]", "is no configuration"),
    "references": ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", "holds references"),
    "depth": ("[" * 20_000, "is no configuration"),
    "binary": ("\x00\x01", "is no configuration"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_configurations(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, said = HOSTILE[what]
    save(model(), tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ConfigError, match=said):
        mmrnn.load(tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert files(tmp_path) == ["run"]


def test_a_hostile_list_of_moves(tmp_path):
    made = tmp_path / "run" / ".saved"
    made.mkdir(parents=True)
    (made / "files.json").write_text(json.dumps({"files": ["../../stolen"]}))
    with pytest.raises(ValueError, match="names files outside of its folder"):
        mmrnn.load(tmp_path / "run")


def test_nothing_to_load(tmp_path):
    with pytest.raises(ConfigError, match="holds no model"):
        mmrnn.load(tmp_path)


class Hub:
    """Stands for the network: what is uploaded is kept in a folder."""

    def __init__(self, root: Path):
        self.root = root

    def create_repo(self, repo_id, **_):
        (self.root / repo_id).mkdir(parents=True)
        return type("Repo", (), {"repo_id": repo_id})()

    def upload_folder(self, *, repo_id, folder_path, **_):
        for path in Path(folder_path).iterdir():
            (self.root / repo_id / path.name).write_bytes(path.read_bytes())
        return f"hub/{repo_id}"


def test_the_hub(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    store = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda **_: store)
    one = model()
    assert "me/mine" in mmrnn.push_to_hub(one, "me/mine")
    assert "model.safetensors" in files(tmp_path / "me" / "mine")
    assert same(one, mmrnn.from_pretrained(tmp_path / "me" / "mine"))

    def listing(_, repo, **__):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files(tmp_path / repo)])

    monkeypatch.setattr(hub.HfApi, "repo_info", listing)
    asked = []

    def snapshot(repo, *, allow_patterns=(), **_):
        asked.extend(allow_patterns)
        return str(tmp_path / repo)

    def no_config(*_, **__):
        raise hub.errors.EntryNotFoundError("config.json")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", no_config)
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfHubHTTPError", hub.errors.EntryNotFoundError)
    assert same(one, mmrnn.from_pretrained("me/mine"))
    assert same(one, mmrnn.load("me/mine").model)
    assert set(asked) == {"model.safetensors", "config.yaml"}
