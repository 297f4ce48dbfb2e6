"""Models on the Hugging Face hub, with the network replaced by a folder."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mmrnn

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Folder in which repositories are kept, and the requests that were made."""
    requests = []

    class Api:
        def __init__(self, token=None):
            requests.append(("token", token))

        def create_repo(self, repo_id, *, private, exist_ok):
            (tmp_path / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            requests.append(("private", private))
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id, folder_path, revision, **options):
            requests.append(("upload", revision, options))
            for path in Path(folder_path).iterdir():
                (tmp_path / repo_id / path.name).write_bytes(path.read_bytes())
            return f"https://hub/{repo_id}/commit/1"

        def repo_info(self, repo, *, revision, timeout):
            requests.append(("info", revision))
            if not (tmp_path / repo).is_dir():
                raise hub.errors.EntryNotFoundError(repo)
            names = [path.name for path in (tmp_path / repo).iterdir()]
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def snapshot_download(repo, *, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            raise hub.errors.LocalEntryNotFoundError(repo)
        requests.append(("download", revision, set(allow_patterns)))
        return str(tmp_path / repo)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    return SimpleNamespace(folder=tmp_path, requests=requests)


def test_pushed_and_loaded(store, model, same, files):
    one = model()
    assert mmrnn.push_to_hub(one, "me/mine") == "https://hub/me/mine/commit/1"
    assert files(store.folder / "me" / "mine") == ["README.md", "config.yaml", "model.safetensors"]
    store.requests.clear()
    assert same(one, mmrnn.from_pretrained("me/mine"))
    assert store.requests[-1] == ("download", None, {"model.safetensors", "config.yaml"})
    assert same(one, mmrnn.load("me/mine").model)
    assert same(one, mmrnn.from_pretrained(store.folder / "me" / "mine"))


def test_options_reach_the_hub(store, model, same):
    one = model()
    options = {"commit_message": "second", "create_pr": True}
    mmrnn.push_to_hub(one, "me/mine", revision="v2", private=True, token="secret", **options)
    assert store.requests == [("token", "secret"), ("private", True), ("upload", "v2", options)]
    store.requests.clear()
    assert same(one, mmrnn.from_pretrained("me/mine", revision="v2"))
    assert [request[:2] for request in store.requests if request[0] != "token"] == [("info", "v2"), ("download", "v2")]


def test_a_model_that_cannot_be_saved_makes_no_repository(store, model):
    whole = model()
    with pytest.raises(ValueError, match="has no configuration"):
        mmrnn.push_to_hub(mmrnn.VLM(whole.backbone, dict(whole.modalities)), "me/mine")
    assert not (store.folder / "me").exists()


def test_no_such_repository(store):
    with pytest.raises(FileNotFoundError, match="the hub has none of that name"):
        mmrnn.from_pretrained("me/mine")


def test_the_hub_out_of_reach(store, monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub.HfApi, "repo_info", offline)
    with pytest.raises(ConnectionError, match=r"the hub cannot be reached \(Name or service not known\)"):
        mmrnn.from_pretrained("me/mine")


def test_without_huggingface_hub(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: mmrnn.push_to_hub(model(), "me/mine"), lambda: mmrnn.from_pretrained("me/mine")):
        with pytest.raises(ImportError, match=r"pip install 'mmrnn\[hub\]'"):
            call()
