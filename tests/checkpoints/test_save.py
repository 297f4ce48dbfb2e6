"""Saved checkpoints: whole or as a part of a base, in one file or in shards."""

import pytest
import torch
import yaml

import mmrnn
from mmrnn.checkpoints.save import save
from mmrnn.io.tensor_files import read


def test_saved_and_loaded(tmp_path, model, same, files):
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


def test_a_model_without_a_configuration(tmp_path, model, same):
    whole = model()
    by_hand = mmrnn.VLM(whole.backbone, dict(whole.modalities))
    with pytest.raises(ValueError, match=r"has no configuration: pass config="):
        save(by_hand, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    save(by_hand, tmp_path / "b", config=whole.config)
    assert same(by_hand, mmrnn.load(tmp_path / "b").model)


def test_shards_and_what_they_replace(tmp_path, model, same, files):
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


def test_a_part_against_a_base(tmp_path, model, same):
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


def test_a_part_without_a_base_is_refused(tmp_path, model):
    one = model()
    with pytest.raises(ValueError, match=r"is not in the checkpoint, and its configuration names no base for it"):
        save(one, tmp_path / "a", only=["connector"])
    with pytest.raises(ValueError, match="matches no tensor"):
        save(one, tmp_path / "a", only=["conector"])
    assert not (tmp_path / "a").exists()
