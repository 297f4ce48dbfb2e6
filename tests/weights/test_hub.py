"""Repositories of the Hugging Face hub, out of reach and within."""

import sys
from types import SimpleNamespace

import pytest
import torch

from mmrnn.io import hub
from mmrnn.weights import load
from mmrnn.weights.export import export


def test_repo_ids():
    assert all(hub.is_repo_id(name) for name in ("BlinkDL/rwkv-6-world", "hf://a/b", "hf://a/b@main/c/d.pth"))
    assert not any(hub.is_repo_id(name) for name in ("a", "a/b.pth", "/a/b", "../a", "a/..", "a/b/c", "./a/b", "~/a"))


def test_which_files_of_a_repository_are_fetched():
    writable = ["model.safetensors", "pytorch_model.bin", "config.json", "a.py", "onnx/model.safetensors", "README.md"]
    assert hub.select_files(writable) == ["config.json", "model.safetensors"]
    assert hub.select_files(["a.pth", "b.pth"]) == ["a.pth", "b.pth"]


def test_the_hub_out_of_reach_and_not_installed(monkeypatch, llama):
    package = pytest.importorskip("huggingface_hub")

    def offline(*_, **__):
        raise ConnectionError("Name or service not known")

    def gone(*_, **__):
        raise package.errors.LocalEntryNotFoundError("not in the cache")

    asked = []
    monkeypatch.setattr(package.HfApi, "repo_info", lambda *_, **more: asked.append(more["timeout"]) or offline())
    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(package, name, lambda *_, **more: asked.append(more["local_files_only"]) or gone())
    for source in ("some/body", "hf://some/body@v1/one.pth"):
        asked.clear()
        with pytest.raises(ConnectionError, match=f"'{source}', and the hub cannot be reached"):
            load(llama(), source)
        # One question that does not wait long, and then what is there already: nothing is asked twice.
        assert asked == [hub.TIMEOUT, True]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'mmrnn\[hub\]'"):
        load(llama(), "some/body")


def listing(names):
    return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])


def test_from_the_hub(tmp_path, monkeypatch, llama, same, shard):
    package = pytest.importorskip("huggingface_hub")
    source, target = llama(), llama()
    shard(tmp_path, export(source, "llama"))
    names = [path.name for path in tmp_path.iterdir()]
    monkeypatch.setattr(package.HfApi, "repo_info", lambda *_, **__: listing(names))
    monkeypatch.setattr(package, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert load(target, "some/body").format == "llama"
    assert same(source, target)
    (tmp_path / "one.pth").write_bytes(b"")
    torch.save(export(source, "llama"), tmp_path / "one.pth")
    fetched = []
    monkeypatch.setattr(package, "hf_hub_download", lambda *a, **k: fetched.append((a, k)) or str(tmp_path / "one.pth"))
    load(target, "hf://some/body@v1/one.pth")
    assert fetched == [(("some/body", "one.pth"), {"revision": "v1", "etag_timeout": hub.TIMEOUT})]
